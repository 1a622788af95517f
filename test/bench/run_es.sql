SELECT * FROM es_inbox_run('bench', 'es_effect(es_inbox_message)', 100);
