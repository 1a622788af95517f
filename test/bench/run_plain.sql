SELECT plain_run(100);
