CREATE TABLE `app_nodes` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`endpoint` text NOT NULL,
	`labels` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `events` (
	`id` integer PRIMARY KEY NOT NULL,
	`at_ms` integer NOT NULL,
	`category` text NOT NULL,
	`action` text NOT NULL,
	`target` text NOT NULL,
	`node_id` text,
	`component` text NOT NULL,
	`message` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `meta` (
	`name` text PRIMARY KEY NOT NULL,
	`value` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `nexuses` (
	`uuid` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`volume_uuid` text,
	`name` text NOT NULL,
	`node_id` text NOT NULL,
	`size_bytes` integer NOT NULL,
	`epoch` integer NOT NULL,
	`children` text NOT NULL,
	`status` text NOT NULL,
	`phase` text NOT NULL,
	`share` text NOT NULL,
	`allowed_hosts` text NOT NULL,
	`controller_ids` text NOT NULL,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `nexuses_volume` ON `nexuses` (`volume_uuid`);--> statement-breakpoint
CREATE TABLE `nodes` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`raft_id` text NOT NULL,
	`peer_endpoint` text NOT NULL,
	`engine_endpoint` text NOT NULL,
	`host_nqn` text NOT NULL,
	`version` text NOT NULL,
	`labels` text NOT NULL,
	`cordon_labels` text NOT NULL,
	`drain_labels` text NOT NULL,
	`drain_phase` text NOT NULL,
	`evacuate` integer NOT NULL,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `pools` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`uuid` text NOT NULL,
	`node_id` text NOT NULL,
	`disks` text NOT NULL,
	`labels` text NOT NULL,
	`status` text NOT NULL,
	`cluster_size_bytes` integer,
	`force` integer NOT NULL,
	`cordoned` integer NOT NULL,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `pools_node` ON `pools` (`node_id`);--> statement-breakpoint
CREATE TABLE `rebuild_history` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`volume_uuid` text NOT NULL,
	`nexus_uuid` text NOT NULL,
	`child_uri` text NOT NULL,
	`source_uri` text NOT NULL,
	`state` text NOT NULL,
	`blocks_total` integer NOT NULL,
	`blocks_recovered` integer NOT NULL,
	`blocks_transferred` integer NOT NULL,
	`blocks_remaining` integer NOT NULL,
	`block_size` integer NOT NULL,
	`is_partial` integer NOT NULL,
	`start_time_ms` integer NOT NULL,
	`end_time_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `rebuild_history_volume` ON `rebuild_history` (`volume_uuid`);--> statement-breakpoint
CREATE TABLE `replicas` (
	`uuid` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`volume_uuid` text,
	`pool_id` text NOT NULL,
	`node_id` text NOT NULL,
	`size_bytes` integer NOT NULL,
	`thin` integer NOT NULL,
	`kind` text NOT NULL,
	`snapshot_uuid` text,
	`status` text NOT NULL,
	`healthy` integer NOT NULL,
	`faulted_at_ms` integer,
	`allowed_hosts` text,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `replicas_volume` ON `replicas` (`volume_uuid`);--> statement-breakpoint
CREATE INDEX `replicas_pool` ON `replicas` (`pool_id`);--> statement-breakpoint
CREATE TABLE `requests` (
	`key` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`at_ms` integer NOT NULL,
	`outcome` text NOT NULL
);
--> statement-breakpoint
CREATE INDEX `requests_at` ON `requests` (`at_ms`);--> statement-breakpoint
CREATE TABLE `settings` (
	`key` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`value` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `snapshots` (
	`uuid` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`volume_uuid` text NOT NULL,
	`size_bytes` integer NOT NULL,
	`status` text NOT NULL,
	`txn_id` integer NOT NULL,
	`replicas` text NOT NULL,
	`taken_at_ms` integer,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `snapshots_volume` ON `snapshots` (`volume_uuid`);--> statement-breakpoint
CREATE TABLE `tokens` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`secret_sha256` text NOT NULL,
	`kind` text NOT NULL,
	`expires_at_ms` integer NOT NULL,
	`note` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `volumes` (
	`uuid` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`size_bytes` integer NOT NULL,
	`replica_count` integer NOT NULL,
	`thin` integer NOT NULL,
	`as_thin` integer NOT NULL,
	`self_heal` integer NOT NULL,
	`topology` text,
	`labels` text NOT NULL,
	`affinity_group` text,
	`max_snapshots` integer,
	`content_source` text,
	`status` text NOT NULL,
	`target` text,
	`epoch` integer NOT NULL,
	`incarnation` integer NOT NULL,
	`clean_shutdown` integer NOT NULL,
	`victim_replica` text,
	`operation` text,
	`created_at_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `watches` (
	`id` text PRIMARY KEY NOT NULL,
	`revision` integer NOT NULL,
	`volume_uuid` text NOT NULL,
	`callback` text NOT NULL
);
