-- Made by SqliteSaver of langgraph-checkpoint-sqlite 3.1.2: one checkpoint, one write; dumped as
-- text.
BEGIN TRANSACTION;
CREATE TABLE checkpoints (
                thread_id TEXT NOT NULL,
                checkpoint_ns TEXT NOT NULL DEFAULT '',
                checkpoint_id TEXT NOT NULL,
                parent_checkpoint_id TEXT,
                type TEXT,
                checkpoint BLOB,
                metadata BLOB,
                PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
            );
INSERT INTO "checkpoints" VALUES('t1','','1f1ecc29-feef-621d-bffe-213e074b4234',NULL,'msgpack',X'88A17602A26964D92431663165636332392D666565662D363231642D626666652D323133653037346234323334A27473D920323032362D31312D33305431333A33333A32372E3632343339352B30303A3030AE6368616E6E656C5F76616C75657380B06368616E6E656C5F76657273696F6E7380AD76657273696F6E735F7365656E80AD70656E64696E675F73656E647390B0757064617465645F6368616E6E656C73C0',X'7B22736F75726365223A2022696E707574222C202273746570223A202D317D');
CREATE TABLE writes (
                thread_id TEXT NOT NULL,
                checkpoint_ns TEXT NOT NULL DEFAULT '',
                checkpoint_id TEXT NOT NULL,
                task_id TEXT NOT NULL,
                task_path TEXT NOT NULL DEFAULT '',
                idx INTEGER NOT NULL,
                channel TEXT NOT NULL,
                type TEXT,
                value BLOB,
                PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
            );
INSERT INTO "writes" VALUES('t1','','1f1ecc29-feef-621d-bffe-213e074b4234','task','',0,'ch','msgpack',X'81A16101');
COMMIT;
