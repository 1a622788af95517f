-- privilege.sql: who may do what. The right itself is EXECUTE; here is which functions make up a privilege, and the limits.

-- A role that is limited in a privilege has USAGE on the privilege's mark (why a mark: see privilege.c).
CREATE DOMAIN @extschema@.es_append_limit AS text COLLATE "C";
COMMENT ON DOMAIN @extschema@.es_append_limit IS
'es_pg: a mark and no more: a role with USAGE on it may append to the categories that es_grants has for it, and to no others. Set by es_grant.';
CREATE DOMAIN @extschema@.es_publish_limit AS text COLLATE "C";
COMMENT ON DOMAIN @extschema@.es_publish_limit IS
'es_pg: a mark and no more: a role with USAGE on it may publish to the topics that es_grants has for it, and to no others. Set by es_grant.';
CREATE DOMAIN @extschema@.es_consume_limit AS text COLLATE "C";
COMMENT ON DOMAIN @extschema@.es_consume_limit IS
'es_pg: a mark and no more: a role with USAGE on it may consume the subscriptions that es_grants has for it, and no others. Set by es_grant.';
CREATE DOMAIN @extschema@.es_inbox_limit AS text COLLATE "C";
COMMENT ON DOMAIN @extschema@.es_inbox_limit IS
'es_pg: a mark and no more: a role with USAGE on it may use the inbox in the names of the consumers that es_grants has for it, and of no others. Set by es_grant.';
REVOKE ALL ON DOMAIN @extschema@.es_append_limit, @extschema@.es_publish_limit, @extschema@.es_consume_limit, @extschema@.es_inbox_limit FROM PUBLIC;

CREATE TABLE @extschema@.es_grants (
    role       regrole NOT NULL,
    privilege  text COLLATE "C" NOT NULL,
    scope      text COLLATE "C" NOT NULL,
    CONSTRAINT es_grants_pkey PRIMARY KEY (role, privilege, scope)
);
COMMENT ON TABLE @extschema@.es_grants IS
'es_pg: what limited roles may do. Rows of a role that is not limited, or not there any more, mean nothing. Written by es_grant and es_revoke; es_privileges shows it.';
COMMENT ON COLUMN @extschema@.es_grants.scope IS 'A category, topic, subscription or consumer; with "*" at its end, all that begin like that';
-- The row of a role that was dropped would be dumped by number, and would then be somebody else's.
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_grants', 'WHERE role IN (SELECT oid FROM pg_catalog.pg_roles)');

-- The one list of what each privilege consists of: a line for each function, or for each table and view to look at.
-- A function may be in several privileges. What is in none, and is not PUBLIC's, is nobody's but the owner's.
CREATE VIEW @extschema@.es_privilege_objects AS
    SELECT l.privilege, l.name, p.oid IS NOT NULL AS is_function,
           CASE WHEN p.oid IS NOT NULL THEN 'EXECUTE ON FUNCTION ' || p.oid::pg_catalog.regprocedure
                ELSE 'SELECT ON TABLE ' || c.oid::pg_catalog.regclass END AS what,
           COALESCE(p.proowner, c.relowner) AS owner,
           COALESCE(p.proacl, c.relacl,
                    pg_catalog.acldefault(CASE WHEN p.oid IS NOT NULL THEN 'f' ELSE 'r' END::"char",
                                          COALESCE(p.proowner, c.relowner))) AS acl,
           pg_catalog.count(*) OVER (PARTITION BY l.name) > 1 AS shared
      FROM (VALUES
               ('append', 'es_append'),
               ('append', 'es_append_batch'),
               ('append', 'es_append_json'),
               ('append', 'es_snapshot'),
               ('publish', 'es_publish'),
               ('publish', 'es_publish_batch'),
               ('publish', 'es_publish_binary'),
               ('publish', 'es_cancel_delayed'),
               ('capture', 'es_capture'),
               ('capture', 'es_inbox_guard'),
               ('read', 'es_read_stream'),
               ('read', 'es_read_category'),
               ('read', 'es_read_all'),
               ('read', 'es_read_event'),
               ('read', 'es_stream_version'),
               ('read', 'es_state'),
               ('read', 'es_horizon'),
               ('read', 'es_last_position'),
               ('read', 'es_incarnation'),
               ('consume', 'es_fetch'),
               ('consume', 'es_ack'),
               ('consume', 'es_nack'),
               ('consume', 'es_renew'),
               ('consume', 'es_release'),
               ('consume', 'es_horizon'),
               ('consume', 'es_last_position'),
               ('consume', 'es_incarnation'),
               ('inbox', 'es_inbox_accept'),
               ('inbox', 'es_inbox_accept_batch'),
               ('inbox', 'es_inbox_accept_sequence'),
               ('inbox', 'es_inbox_put'),
               ('inbox', 'es_inbox_put_batch'),
               ('inbox', 'es_inbox_run'),
               ('inbox', 'es_command_begin'),
               ('inbox', 'es_command_end'),
               ('admin', 'es_create_consumer'),
               ('admin', 'es_drop_consumer'),
               ('admin', 'es_inbox_consumers'),
               ('admin', 'es_create_inbox'),
               ('admin', 'es_inbox_status'),
               ('admin', 'es_inbox_counts'),
               ('admin', 'es_inbox_waiting'),
               ('admin', 'es_key_lane'),
               ('admin', 'es_drop_inbox'),
               ('admin', 'es_inboxes'),
               ('admin', 'es_inbox_keys'),
               ('admin', 'es_inbox_held'),
               ('admin', 'es_inbox_add_incarnation'),
               ('admin', 'es_inbox_close_holes'),
               ('admin', 'es_inbox_sequences'),
               ('admin', 'es_inbox_ranges'),
               ('admin', 'es_inbox_lost'),
               ('admin', 'es_inbox_sequence_status'),
               ('read', 'es_wait_for'),
               ('read', 'es_watch_projection'),
               ('project', 'es_create_projection'),
               ('project', 'es_drop_projection'),
               ('project', 'es_pause_projection'),
               ('project', 'es_resume_projection'),
               ('project', 'es_rebuild_projection'),
               ('project', 'es_cancel_rebuild'),
               ('project', 'es_swap_projection'),
               ('project', 'es_run_projections'),
               ('project', 'es_start_worker'),
               ('admin', 'es_start_worker'),
               ('admin', 'es_stop_worker'),
               ('admin', 'es_worker_pid'),
               ('admin', 'es_projections'),
               ('admin', 'es_projection_bodies'),
               ('admin', 'es_projection_status'),
               ('admin', 'es_horizon'),
               ('admin', 'es_last_position'),
               ('admin', 'es_incarnation'),
               ('admin', 'es_in_flight'),
               ('admin', 'es_writers'),
               ('admin', 'es_create_subscription'),
               ('admin', 'es_alter_subscription'),
               ('admin', 'es_pause_subscription'),
               ('admin', 'es_resume_subscription'),
               ('admin', 'es_seek_subscription'),
               ('admin', 'es_drop_subscription'),
               ('admin', 'es_redrive'),
               ('admin', 'es_discard'),
               ('admin', 'es_subscriptions'),
               ('admin', 'es_leases'),
               ('admin', 'es_cursors'),
               ('admin', 'es_parked'),
               ('admin', 'es_dead_letters'),
               ('admin', 'es_lane_cursors'),
               ('admin', 'es_members'),
               ('admin', 'es_consumer_hash'),
               ('admin', 'es_lag_messages'),
               ('admin', 'es_lag_since'),
               ('admin', 'es_lag_bytes'),
               ('admin', 'es_suspend_lagging'),
               ('admin', 'es_shared_memory'),
               ('admin', 'es_subscription_lanes'),
               ('admin', 'es_subscription_status'),
               ('admin', 'es_prepare_chunks'),
               ('admin', 'es_restore_chunks'),
               ('admin', 'es_protect_history'),
               ('admin', 'es_chunk_list'),
               ('admin', 'es_maintain'),
               ('admin', 'es_publish_due'),
               ('admin', 'es_retire_chunks'),
               ('admin', 'es_lowest_cursor'),
               ('admin', 'es_outbox_status'),
               ('admin', 'es_adopt'),
               ('admin', 'es_snapshots'),
               ('admin', 'es_snapshot_policies'),
               ('admin', 'es_set_snapshot_policy'),
               ('admin', 'es_drop_snapshot_policy'),
               ('admin', 'es_prune_snapshots'),
               ('admin', 'es_grant'),
               ('admin', 'es_revoke'),
               ('admin', 'es_privileges')) AS l (privilege, name)
      JOIN pg_catalog.pg_extension AS e ON e.extname = 'es_pg'
      JOIN pg_catalog.pg_depend AS d ON d.refclassid = e.tableoid AND d.refobjid = e.oid AND d.deptype = 'e'
      LEFT JOIN pg_catalog.pg_proc AS p ON d.classid = p.tableoid AND d.objid = p.oid
      LEFT JOIN pg_catalog.pg_class AS c ON d.classid = c.tableoid AND d.objid = c.oid
     WHERE l.name = COALESCE(p.proname, c.relname)::text;
COMMENT ON VIEW @extschema@.es_privilege_objects IS
'What each privilege consists of, as es_grant grants it, and who has it. shared: it belongs to another privilege, too.
Example: SELECT privilege, what FROM es_privilege_objects ORDER BY 1, 2;';

CREATE VIEW @extschema@.es_limited AS
    SELECT a.grantee::pg_catalog.regrole AS role, l.privilege
      FROM (VALUES ('append', '@extschema@.es_append_limit'::pg_catalog.regtype),
                   ('publish', '@extschema@.es_publish_limit'::pg_catalog.regtype),
                   ('consume', '@extschema@.es_consume_limit'::pg_catalog.regtype),
                   ('inbox', '@extschema@.es_inbox_limit'::pg_catalog.regtype)) AS l (privilege, mark)
      JOIN pg_catalog.pg_type AS t ON t.oid = l.mark
     CROSS JOIN LATERAL pg_catalog.aclexplode(t.typacl) AS a
     WHERE a.grantee <> t.typowner;
COMMENT ON VIEW @extschema@.es_limited IS
'Which roles are limited in which privilege.
Example: SELECT role, privilege FROM es_limited;';

CREATE VIEW @extschema@.es_privileges AS
    WITH object AS MATERIALIZED (SELECT * FROM @extschema@.es_privilege_objects),
         holder AS (SELECT a.grantee::pg_catalog.regrole AS role, o.privilege, pg_catalog.array_agg(o.name) AS names
                      FROM object AS o
                     CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a
                     WHERE a.grantee <> o.owner AND a.privilege_type IN ('EXECUTE', 'SELECT')
                     GROUP BY a.grantee, o.privilege
                    HAVING pg_catalog.bool_or(o.is_function AND NOT o.shared))
    SELECT h.role, h.privilege,
           CASE WHEN EXISTS (SELECT FROM @extschema@.es_limited AS l WHERE l.role = h.role AND l.privilege = h.privilege)
                THEN ARRAY(SELECT g.scope FROM @extschema@.es_grants AS g
                            WHERE g.role = h.role AND g.privilege = h.privilege ORDER BY g.scope) END AS scopes,
           ARRAY(SELECT o.name FROM object AS o
                  WHERE o.privilege = h.privilege AND NOT o.name = ANY (h.names) ORDER BY o.name) AS missing
      FROM holder AS h;
COMMENT ON VIEW @extschema@.es_privileges IS
'Which roles have which privilege, by es_grant or by GRANT EXECUTE; the owner and superusers have them all and are not listed. role: "-" is PUBLIC; scopes: what it is limited to, NULL for no limits, empty for nothing; missing: what belongs to the privilege and the role has not, as after a GRANT by hand.
Example: SELECT role, privilege, scopes FROM es_privileges;';

-- What es_grant and es_revoke begin with.
CREATE FUNCTION @extschema@.es_check_grant(role regrole, privilege text, scope text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF role IS NULL OR privilege IS NULL THEN
        RAISE EXCEPTION 'role and privilege must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = role) THEN
        RAISE EXCEPTION 'role "%" does not exist', role
            USING ERRCODE = 'undefined_object', HINT = 'Privileges are granted to roles, not to PUBLIC.';
    END IF;
    IF role = (SELECT extowner FROM pg_catalog.pg_extension WHERE extname = 'es_pg') THEN
        RAISE EXCEPTION 'role "%" owns es_pg', role
            USING ERRCODE = 'invalid_grant_operation', DETAIL = 'The owner has every privilege, without limits.';
    END IF;
    IF privilege NOT IN ('append', 'publish', 'capture', 'read', 'consume', 'inbox', 'project', 'admin') THEN
        RAISE EXCEPTION 'unknown privilege "%"', privilege
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Privileges are append, publish, capture, read, consume, inbox, project and admin.';
    END IF;
    IF scope IS NOT NULL AND privilege IN ('capture', 'read', 'project', 'admin') THEN
        RAISE EXCEPTION 'privilege "%" cannot be limited', privilege
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'append can be limited to categories, publish to topics, consume to subscriptions, inbox to consumers.';
    END IF;
    IF scope = '' OR pg_catalog.octet_length(scope) > 1024 OR scope ~ '[\x01-\x1f\x7f]' THEN
        RAISE EXCEPTION 'invalid scope'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A scope has 1 to 1,024 bytes and no control characters.';
    END IF;
    IF privilege = 'append' AND pg_catalog.strpos(scope, '-') > 0 THEN
        RAISE EXCEPTION 'invalid category "%"', scope
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A category is what stands before the first "-" of a stream''s name.';
    END IF;
    -- One at a time: two GRANTs on one function at once would fail.
    LOCK TABLE @extschema@.es_grants IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM @extschema@.es_grants AS g
     WHERE NOT EXISTS (SELECT FROM @extschema@.es_limited AS l WHERE l.role = g.role AND l.privilege = g.privilege);
END $$;
COMMENT ON FUNCTION @extschema@.es_check_grant(regrole, text, text) IS
'es_pg: what es_grant and es_revoke begin with: checks their arguments, lets nobody else in until commit, and sweeps rows that mean nothing any more.
Example: SELECT es_check_grant(''shop'', ''append'', NULL);';

CREATE FUNCTION @extschema@.es_grant(role regrole, privilege text, scope text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    limited boolean;
    what text;
BEGIN
    PERFORM @extschema@.es_check_grant(role, privilege, scope);
    limited := EXISTS (SELECT FROM @extschema@.es_limited AS l
                        WHERE l.role = es_grant.role AND l.privilege = es_grant.privilege);
    IF scope IS NOT NULL THEN
        IF NOT limited AND EXISTS (SELECT FROM @extschema@.es_privileges AS p
                                    WHERE p.role = es_grant.role AND p.privilege = es_grant.privilege) THEN
            RAISE EXCEPTION 'role "%" has the privilege "%" without limits', role, privilege
                USING ERRCODE = 'invalid_grant_operation', HINT = 'To limit it, use es_revoke first.';
        END IF;
        INSERT INTO @extschema@.es_grants VALUES (role, privilege, scope) ON CONFLICT DO NOTHING;
        EXECUTE pg_catalog.format('GRANT USAGE ON DOMAIN %s.es_%s_limit TO %s', '@extschema@', privilege, role);
    ELSIF limited THEN
        DELETE FROM @extschema@.es_grants AS g WHERE g.role = es_grant.role AND g.privilege = es_grant.privilege;
        EXECUTE pg_catalog.format('REVOKE USAGE ON DOMAIN %s.es_%s_limit FROM %s', '@extschema@', privilege, role);
    END IF;
    FOR what IN SELECT o.what FROM @extschema@.es_privilege_objects AS o WHERE o.privilege = es_grant.privilege LOOP
        EXECUTE pg_catalog.format('GRANT %s TO %s', what, role);
    END LOOP;
    IF what IS NULL THEN
        RAISE EXCEPTION 'privilege "%" is not in this version of es_pg', privilege USING ERRCODE = 'feature_not_supported';
    END IF;
    IF NOT pg_catalog.has_schema_privilege(role, '@extschema@'::regnamespace, 'USAGE') THEN
        RAISE NOTICE 'role "%" has no USAGE on schema %', role, '@extschema@'
            USING HINT = pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %s;', '@extschema@', role);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_grant(regrole, text, text) IS
'Grants a privilege to a role: append, publish, capture, read, consume, inbox, project or admin (es_privilege_objects says which functions each one is). With scope append, publish, consume and inbox are limited: to that category, topic, subscription, consumer; "*" at its end means all that begin like that; further calls add further ones. Without scope, limits end.
Errors: 0LP01 the role owns es_pg, or has the privilege without limits already; 42704 no such role; 22004; 22023.
Example: SELECT es_grant(''shop'', ''append'', ''order''), es_grant(''shop'', ''read'');';

CREATE FUNCTION @extschema@.es_revoke(role regrole, privilege text, scope text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    what text;
BEGIN
    PERFORM @extschema@.es_check_grant(role, privilege, scope);
    DELETE FROM @extschema@.es_grants AS g
     WHERE g.role = es_revoke.role AND g.privilege = es_revoke.privilege AND g.scope = COALESCE(es_revoke.scope, g.scope);
    IF NOT FOUND AND scope IS NOT NULL THEN
        RAISE EXCEPTION 'role "%" has no privilege "%" that is limited to "%"', role, privilege, scope
            USING ERRCODE = 'undefined_object', HINT = 'es_privileges shows what it has.';
    END IF;
    IF EXISTS (SELECT FROM @extschema@.es_grants AS g WHERE g.role = es_revoke.role AND g.privilege = es_revoke.privilege) THEN
        RETURN;
    END IF;
    -- All but what belongs to another privilege that it has.
    FOR what IN
        SELECT o.what FROM @extschema@.es_privilege_objects AS o
         WHERE o.privilege = es_revoke.privilege
           AND NOT EXISTS (SELECT FROM @extschema@.es_privileges AS p
                             JOIN @extschema@.es_privilege_objects AS other ON other.privilege = p.privilege
                            WHERE p.role = es_revoke.role AND p.missing = '{}' AND p.privilege <> o.privilege AND other.what = o.what)
    LOOP
        EXECUTE pg_catalog.format('REVOKE %s FROM %s', what, role);
    END LOOP;
    -- Who has it from somebody else still has not become unlimited.
    IF EXISTS (SELECT FROM @extschema@.es_limited AS l WHERE l.role = es_revoke.role AND l.privilege = es_revoke.privilege)
       AND NOT EXISTS (SELECT FROM @extschema@.es_privileges AS p WHERE p.role = es_revoke.role AND p.privilege = es_revoke.privilege) THEN
        EXECUTE pg_catalog.format('REVOKE USAGE ON DOMAIN %s.es_%s_limit FROM %s', '@extschema@', privilege, role);
    END IF;
END $$;
COMMENT ON FUNCTION @extschema@.es_revoke(regrole, text, text) IS
'Takes a privilege from a role, or with scope one of its limits'' scopes; with the last of them the privilege itself. What it has through other roles stays.
Errors: 0LP01 the role owns es_pg; 42704 no such role, or no such scope; 22004; 22023.
Example: SELECT es_revoke(''shop'', ''append'', ''order'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_check_grant(regrole, text, text),
    @extschema@.es_grant(regrole, text, text),
    @extschema@.es_revoke(regrole, text, text)
FROM PUBLIC;
