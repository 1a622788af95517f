SELECT state, version FROM es_state(:stream, 'sum {"path": "$.amount"}');
