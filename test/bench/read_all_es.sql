-- The next batch of the log. \aset keeps the columns of the last row, so :position is where the next one goes on.
SELECT * FROM es_read_all(:position, :batch) \aset
