package main

// roleOf is the role that a process logs in as, so that the database can tell the
// victim's sessions from others.
func roleOf(name string) string {
	if name == "victim" {
		return "victim"
	}
	return "other"
}

// rigging is what the gate adds to its database beside the migrations: the roles,
// who own the schema together, and functions for triggers that faults create.
// What a function does it does only while a row of crashtest.armed names it, and
// hold only while the gate has its lock.
const rigging = `
CREATE ROLE service NOLOGIN;
GRANT pg_read_all_stats, pg_signal_backend TO service; -- as one role would see and end its own
CREATE ROLE victim LOGIN IN ROLE service;
CREATE ROLE other LOGIN IN ROLE service;
ALTER ROLE victim SET role = 'service';
ALTER ROLE other SET role = 'service';
ALTER SCHEMA runtime OWNER TO service;
DO $$
DECLARE t text;
BEGIN
	FOR t IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'runtime'::regnamespace AND relkind IN ('r', 'p', 'v') LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO service', t);
	END LOOP;
END $$;

CREATE SCHEMA crashtest;
CREATE TABLE crashtest.armed (what text PRIMARY KEY);
CREATE SEQUENCE crashtest.raised;
GRANT USAGE ON SCHEMA crashtest TO service;
GRANT SELECT ON crashtest.armed TO service;
GRANT USAGE ON SEQUENCE crashtest.raised TO service;

CREATE FUNCTION crashtest.hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF session_user = 'victim' THEN
		PERFORM pg_advisory_xact_lock_shared(47);
	END IF;
	RETURN NULL;
END $$;

CREATE FUNCTION crashtest.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF session_user IN ('victim', 'other') AND EXISTS (SELECT FROM crashtest.armed WHERE what = 'slow')
		AND current_setting('crashtest.slept', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
		PERFORM set_config('crashtest.slept', pg_current_xact_id()::text, true), nextval('crashtest.raised'), pg_sleep(0.5);
	END IF;
	RETURN NULL;
END $$;

CREATE FUNCTION crashtest.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF session_user IN ('victim', 'other') AND random() < 0.05 AND EXISTS (SELECT FROM crashtest.armed WHERE what = 'fail') THEN
		PERFORM nextval('crashtest.raised'); -- which a rollback does not undo
		RAISE EXCEPTION 'injected' USING ERRCODE = (ARRAY['40001', '40P01', '57014', '55P03'])[1 + floor(random() * 4)::int];
	END IF;
	RETURN NULL;
END $$;
`

// rigged creates triggers before any process runs; undo drops them when none does.
type rigged struct{ create, drop string }

var (
	// holdAtCommit holds a commit back when all its statements are done.
	holdAtCommit = &rigged{
		`CREATE CONSTRAINT TRIGGER crashtest_hold AFTER UPDATE ON runtime.run_heads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION crashtest.hold()`,
		`DROP TRIGGER crashtest_hold ON runtime.run_heads`,
	}
	// holdInside holds it back between two of its statements.
	holdInside = &rigged{
		`CREATE TRIGGER crashtest_hold BEFORE UPDATE ON runtime.run_heads FOR EACH STATEMENT EXECUTE FUNCTION crashtest.hold()`,
		`DROP TRIGGER crashtest_hold ON runtime.run_heads`,
	}
	slowCommits = &rigged{
		`CREATE CONSTRAINT TRIGGER crashtest_slow AFTER UPDATE ON runtime.run_heads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION crashtest.slow()`,
		`DROP TRIGGER crashtest_slow ON runtime.run_heads`,
	}
	failures = &rigged{
		`DO $$ DECLARE t text; BEGIN
			FOREACH t IN ARRAY ARRAY['runs', 'run_heads', 'run_log', 'run_log_deltas', 'frames', 'run_leases', 'ds_predict_receipts', 'checkpoints', 'tool_tasks', 'approvals'] LOOP
				EXECUTE format('CREATE TRIGGER crashtest_fail AFTER INSERT OR UPDATE ON runtime.%I FOR EACH STATEMENT EXECUTE FUNCTION crashtest.fail()', t);
			END LOOP;
		END $$`,
		`DO $$ DECLARE t text; BEGIN
			FOR t IN SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'crashtest_fail' AND tgparentid = 0 LOOP
				EXECUTE format('DROP TRIGGER crashtest_fail ON %s', t);
			END LOOP;
		END $$`,
	}
)
