-- A consumer: fetch, wait where there is nothing, acknowledge. \aset keeps the columns of the last row, and of the row
-- before that where there was none; before the first there is nothing to acknowledge. With listen=1 it hears the channel of
-- append_notify.sql too.
\if :listen
LISTEN bench;
\set listen 0
\endif
SELECT * FROM es_fetch('bench', 'bench', :batch, :wait) \aset
\if :epoch
SELECT es_ack('bench', :lane, :epoch, :position);
\endif
