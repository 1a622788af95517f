SELECT es_run_projections(:name);
