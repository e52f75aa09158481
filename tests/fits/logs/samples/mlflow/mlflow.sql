CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
INSERT INTO "experiments" VALUES(0,'Default','/tmp/tools/mlruns/0','active',1796053157070,1796053157070,'default');
INSERT INTO "experiments" VALUES(1,'grid','/tmp/tools/mlruns/1','active',1796053157121,1796053157121,'default');
CREATE TABLE "latest_metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT, 
	step BIGINT NOT NULL, 
	is_nan BOOLEAN NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT latest_metric_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "latest_metrics" VALUES('val_loss',3.341641,1796053158999,80,0,'bd6dc52f8be64a1f88053be4223c67d2');
INSERT INTO "latest_metrics" VALUES('tokens',20480.0,1796053158999,80,0,'bd6dc52f8be64a1f88053be4223c67d2');
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO "metrics" VALUES('val_loss',4.12132,1796053157649,'bd6dc52f8be64a1f88053be4223c67d2',20,0);
INSERT INTO "metrics" VALUES('tokens',5120.0,1796053157649,'bd6dc52f8be64a1f88053be4223c67d2',20,0);
INSERT INTO "metrics" VALUES('val_loss',3.732051,1796053158246,'bd6dc52f8be64a1f88053be4223c67d2',40,0);
INSERT INTO "metrics" VALUES('tokens',10240.0,1796053158246,'bd6dc52f8be64a1f88053be4223c67d2',40,0);
INSERT INTO "metrics" VALUES('val_loss',3.5,1796053158694,'bd6dc52f8be64a1f88053be4223c67d2',60,0);
INSERT INTO "metrics" VALUES('tokens',15360.0,1796053158694,'bd6dc52f8be64a1f88053be4223c67d2',60,0);
INSERT INTO "metrics" VALUES('val_loss',3.341641,1796053158999,'bd6dc52f8be64a1f88053be4223c67d2',80,0);
INSERT INTO "metrics" VALUES('tokens',20480.0,1796053158999,'bd6dc52f8be64a1f88053be4223c67d2',80,0);
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO "params" VALUES('n_params_non_embedding','4688','bd6dc52f8be64a1f88053be4223c67d2');
INSERT INTO "params" VALUES('seq_len','32','bd6dc52f8be64a1f88053be4223c67d2');
INSERT INTO "params" VALUES('seed','3','bd6dc52f8be64a1f88053be4223c67d2');
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO "runs" VALUES('bd6dc52f8be64a1f88053be4223c67d2','student-16','UNKNOWN','','','root','FINISHED',1796053157365,1796053159340,'','active','/tmp/tools/mlruns/1/bd6dc52f8be64a1f88053be4223c67d2/artifacts',1,NULL);
