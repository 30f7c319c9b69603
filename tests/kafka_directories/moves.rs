//! The moves of a directory between brokers: their order, the end of each broker, and the comparison in between.

use std::path::{Path, PathBuf};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{
    AddPartitionsToTxnRequest, AlterClientQuotasRequest, CreateAclsRequest, DescribeAclsRequest,
    DescribeClientQuotasRequest, DescribeUserScramCredentialsRequest, EndTxnRequest,
    InitProducerIdRequest, UpdateFeaturesRequest, add_partitions_to_txn_request,
    alter_client_quotas_request, create_acls_request, describe_client_quotas_request,
    update_features_request,
};

use crate::kafka::{Kafka, KafkaOptions, Version};
use crate::picture::Picture;
use crate::refusals::{doctor, refused, told};
use crate::seed::Seed;
use crate::support::batch::TestBatch;
use crate::support::calls::{code, create_topic, only_partition, produce_request, text};
use crate::support::client::Client;
use crate::support::{Broker, Scratch, eventually};
use crate::{chronik, connect, tree};

/// Several directories as one argument.
fn joined(dirs: &[PathBuf]) -> PathBuf {
    let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    names.join(",").into()
}

fn client_of(kafka: &Kafka) -> Client {
    Client::connect(kafka.address())
}

/// Holds what a broker of ours serves of these directories against the picture, has clients go on, and
/// gives the picture after that.
fn through_chronik(dirs: &[PathBuf], before: &Picture, seed: &mut Seed) -> Picture {
    let broker = chronik(&joined(dirs)).start();
    let after = through(&mut connect(&broker), before, seed);
    broker.stop();
    dirs.iter().for_each(|dir| tree::dump_everything(dir));
    after
}

/// The same for a Kafka.
fn through_kafka(kafka: &KafkaOptions, before: &Picture, seed: &mut Seed) -> Picture {
    let running = kafka.start();
    let after = through(&mut client_of(&running), before, seed);
    running.stop();
    after
}

fn through(client: &mut Client, before: &Picture, seed: &mut Seed) -> Picture {
    before.expect(&Picture::take(client));
    seed.go_on(client);
    Picture::take(client)
}

/// The doctor must have nothing against a start, and touch nothing.
fn sound(dirs: &[PathBuf], words: &[&str]) {
    let before: Vec<_> = dirs.iter().map(|dir| tree::digest(dir)).collect();
    let paths: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let output = doctor(&paths, &[]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} in\n{said}");
    }
    let after: Vec<_> = dirs.iter().map(|dir| tree::digest(dir)).collect();
    assert_eq!(before, after);
}

#[test]
fn a_directory_of_kafkas_is_served_unchanged_and_given_back() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0])
        .set("metadata.log.max.record.bytes.between.snapshots=6000");
    kafka.format(&[]);
    let running = kafka.start();
    let mut client = client_of(&running);
    let mut seed = Seed::plant(&mut client, true);
    let planted = Picture::take(&mut client);
    running.stop();

    sound(
        &dirs,
        &[
            "Apache Kafka",
            "metadata.version 4.3-IV0",
            "stopped in order",
        ],
    );
    let picture = through_chronik(&dirs, &planted, &mut seed);
    sound(
        &dirs,
        &["by Chronik", "metadata.version 4.3-IV0", "stopped in order"],
    );
    let picture = through_kafka(&kafka, &picture, &mut seed);
    through_chronik(&dirs, &picture, &mut seed);
}

#[test]
fn a_directory_of_ours_is_served_by_kafka_unchanged_and_given_back() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let broker = chronik(&dirs[0]).start();
    let mut client = connect(&broker);
    let mut seed = Seed::plant(&mut client, true);
    let planted = Picture::take(&mut client);
    broker.stop();
    tree::dump_everything(&dirs[0]);

    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0]);
    let picture = through_kafka(&kafka, &planted, &mut seed);
    through_chronik(&dirs, &picture, &mut seed);
}

#[test]
fn a_directory_of_a_killed_kafka_is_recovered_and_given_back() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0]);
    kafka.format(&[]);
    let running = kafka.start();
    let mut client = client_of(&running);
    let mut seed = Seed::plant(&mut client, true);
    let planted = Picture::take(&mut client);
    running.kill();

    sound(&dirs, &["Apache Kafka", "killed"]);
    let picture = through_chronik(&dirs, &planted, &mut seed);
    // Once more, on files that a broker of ours left in between.
    let running = kafka.start();
    let picture = through(&mut client_of(&running), &picture, &mut seed);
    running.kill();
    through_chronik(&dirs, &picture, &mut seed);
}

#[test]
fn a_directory_of_kafka_3_9_is_served_and_given_back_to_it_and_to_a_newer_one() {
    if Version::Old.is_missing() || Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Old, &dirs[0])
        .set("metadata.log.max.record.bytes.between.snapshots=6000");
    kafka.format(&[]);
    let running = kafka.start();
    let mut client = client_of(&running);
    let mut seed = Seed::plant(&mut client, false);
    let planted = Picture::take(&mut client);
    running.stop();

    sound(&dirs, &["Apache Kafka", "metadata.version 3.9-IV0"]);
    let picture = through_chronik(&dirs, &planted, &mut seed);
    let running = kafka.start();
    let picture = through(&mut client_of(&running), &picture, &mut seed);
    running.kill();
    let picture = through_chronik(&dirs, &picture, &mut seed);
    let newer = KafkaOptions::new(Version::Pinned, &dirs[0]);
    through_kafka(&newer, &picture, &mut seed);
}

/// What only an operator of Kafka's sees: ACLs, quotas, SCRAM credentials.
fn rules(client: &mut Client) -> String {
    let acls = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        resource_name_filter: None,
        principal_filter: None,
        host_filter: None,
        ..DescribeAclsRequest::default()
    };
    let quotas = DescribeClientQuotasRequest {
        components: vec![describe_client_quotas_request::ComponentData {
            entity_type: text("user"),
            match_type: 2,
            r#match: None,
            ..Default::default()
        }],
        ..DescribeClientQuotasRequest::default()
    };
    // Kafka acknowledges them before it describes them.
    let (acls, quotas) = eventually("Kafka knows its ACLs and quotas", || {
        let acls = client.call(&acls, 3);
        let quotas = client.call(&quotas, 1);
        let has_quotas = quotas
            .entries
            .as_ref()
            .is_some_and(|quotas| !quotas.is_empty());
        (!acls.resources.is_empty() && has_quotas).then_some((acls.resources, quotas.entries))
    });
    let users = DescribeUserScramCredentialsRequest {
        users: None,
        ..DescribeUserScramCredentialsRequest::default()
    };
    let users = client.call(&users, 0).results;
    assert_eq!(users.len(), 1);
    format!("{acls:?} {quotas:?} {users:?}")
}

fn make_rules(client: &mut Client) {
    let acl = create_acls_request::AclCreation {
        resource_type: 2,
        resource_name: text("plain"),
        resource_pattern_type: 3,
        principal: text("User:alice"),
        host: text("*"),
        operation: 3,
        permission_type: 3,
        ..Default::default()
    };
    let request = CreateAclsRequest {
        creations: vec![acl],
        ..CreateAclsRequest::default()
    };
    let made = client.call(&request, 3).results.remove(0);
    assert_eq!(
        code(made.error_code),
        ErrorCode::None,
        "{:?}",
        made.error_message
    );
    let request = AlterClientQuotasRequest {
        entries: vec![alter_client_quotas_request::EntryData {
            entity: vec![alter_client_quotas_request::EntityData {
                entity_type: text("user"),
                entity_name: Some(text("alice")),
                ..Default::default()
            }],
            ops: vec![alter_client_quotas_request::OpData {
                key: text("producer_byte_rate"),
                value: 1234.0,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..AlterClientQuotasRequest::default()
    };
    let made = client.call(&request, 1).entries.remove(0);
    assert_eq!(
        code(made.error_code),
        ErrorCode::None,
        "{:?}",
        made.error_message
    );
}

#[test]
fn voters_in_the_log_several_directories_and_rules_of_access_are_kept() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("one"), scratch.join("two")];
    let kafka = KafkaOptions::over(Version::Pinned, dirs.to_vec())
        .dynamic_quorum()
        .set("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .set("super.users=User:ANONYMOUS");
    let credential = "SCRAM-SHA-256=[name=alice,password=secret]";
    kafka.format(&["--add-scram", credential]);
    let running = kafka.start();
    let mut client = client_of(&running);
    let mut seed = Seed::plant(&mut client, true);
    make_rules(&mut client);
    let (planted, made) = (Picture::take(&mut client), rules(&mut client));
    running.stop();

    let words = [
        "ACLs (1)",
        "SCRAM credentials (1)",
        "client quotas (1)",
        "not enforced",
    ];
    sound(&dirs, &words);
    refused(&[&dirs[0]], &[], &["another log directory", "log.dirs"]);
    let picture = through_chronik(&dirs, &planted, &mut seed);
    // From the snapshot that the stop wrote.
    let picture = through_chronik(&dirs, &picture, &mut seed);
    let running = kafka.start();
    let mut client = client_of(&running);
    through(&mut client, &picture, &mut seed);
    assert_eq!(made, rules(&mut client));
    running.stop();
}

#[test]
fn a_directory_that_was_only_formatted_begins_as_it_was_formatted() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0])
        .set("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .set("super.users=User:ANONYMOUS");
    let credential = "SCRAM-SHA-256=[name=alice,password=secret]";
    kafka.format(&["--release-version", "4.0", "--add-scram", credential]);
    sound(
        &dirs,
        &["metadata.version 4.0-IV3", "SCRAM credentials (1)"],
    );
    let broker = chronik(&dirs[0]).start();
    let mut client = connect(&broker);
    let mut seed = Seed::plant(&mut client, true);
    let planted = Picture::take(&mut client);
    assert_eq!(planted.features["metadata.version"], 25);
    broker.stop();
    let running = kafka.start();
    let mut client = client_of(&running);
    through(&mut client, &planted, &mut seed);
    make_rules(&mut client);
    rules(&mut client);
    running.stop();
}

/// A transaction on a topic, up to its first record.
fn begin_transaction(client: &mut Client, topic: &str) -> (i64, i16) {
    crate::picture::transactions_coordinated(client, "t-1");
    let request = InitProducerIdRequest {
        transactional_id: Some(text("t-1")),
        transaction_timeout_ms: 600_000,
        ..InitProducerIdRequest::default()
    };
    let producer = eventually("a producer id", || {
        let producer = client.call(&request, 4);
        match code(producer.error_code) {
            ErrorCode::None => Some(producer),
            ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => None,
            error => panic!("no producer: {error:?}"),
        }
    });
    let (id, epoch) = (producer.producer_id, producer.producer_epoch);
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: text("t-1"),
        v3_and_below_producer_id: id,
        v3_and_below_producer_epoch: epoch,
        v3_and_below_topics: vec![add_partitions_to_txn_request::AddPartitionsToTxnTopic {
            name: text(topic),
            partitions: vec![0],
            ..Default::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    eventually("the partition is in the transaction", || {
        let added = client.call(&request, 3);
        let topics = &added.results_by_topic_v3_and_below;
        match code(topics[0].results_by_partition[0].partition_error_code) {
            ErrorCode::None => Some(()),
            ErrorCode::ConcurrentTransactions => None,
            error => panic!("not added: {error:?}"),
        }
    });
    let mut batch = TestBatch::of_values(["in a transaction"]).by_producer(id, epoch, 0);
    batch.attributes |= 0x10;
    let mut request = produce_request(topic, 0, -1, batch.encode());
    request.transactional_id = Some(text("t-1"));
    let answer = only_partition(client.call(&request, 9));
    assert_eq!(
        code(answer.error_code),
        ErrorCode::None,
        "{:?}",
        answer.error_message
    );
    (id, epoch)
}

fn end_transaction(client: &mut Client, (id, epoch): (i64, i16), committed: bool) {
    let request = EndTxnRequest {
        transactional_id: text("t-1"),
        producer_id: id,
        producer_epoch: epoch,
        committed,
        ..EndTxnRequest::default()
    };
    let ended = client.call(&request, 3);
    assert_eq!(code(ended.error_code), ErrorCode::None);
    // The markers are written behind the answer; the next transaction waits for them.
    let stable = |client: &mut Client| {
        let data = crate::support::calls::fetch(client, "plain", 0, 0);
        data.last_stable_offset == data.high_watermark
    };
    eventually("the markers of the transaction", || {
        stable(client).then_some(())
    });
}

#[test]
fn transactions_are_taken_over_when_they_have_ended_and_refused_otherwise() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0]);
    kafka.format(&[]);
    let running = kafka.start();
    let mut client = client_of(&running);
    create_topic(&mut client, "plain", 1, &[]);
    crate::picture::led(&mut client, "plain", 0);
    let transaction = begin_transaction(&mut client, "plain");
    end_transaction(&mut client, transaction, true);
    let planted = Picture::take(&mut client);
    told(&[&dirs[0]], &[], &["is held by process"]);
    running.stop();

    let broker: Broker = chronik(&dirs[0]).start();
    planted.expect(&Picture::take(&mut connect(&broker)));
    let beside = kafka.refusal();
    assert!(beside.contains("lock"), "{beside}");
    broker.stop();

    let running = kafka.start();
    let mut client = client_of(&running);
    crate::picture::led(&mut client, "plain", 0);
    let transaction = begin_transaction(&mut client, "plain");
    running.kill();
    refused(&[&dirs[0]], &[], &["transactions are open", "(t-1)"]);
    let running = kafka.start();
    let mut client = client_of(&running);
    running_again(&mut client);
    end_transaction(&mut client, transaction, false);
    let planted = Picture::take(&mut client);
    assert_eq!(planted.topics["plain"].partitions[&0].aborted.len(), 1);
    running.stop();
    let broker: Broker = chronik(&dirs[0]).start();
    planted.expect(&Picture::take(&mut connect(&broker)));
    broker.stop();
    let running = kafka.start();
    planted.expect(&Picture::take(&mut client_of(&running)));
    running.stop();
}

/// Waits until the coordinator has read what it knew.
fn running_again(client: &mut Client) {
    crate::picture::led(client, "plain", 0);
    crate::picture::transactions_coordinated(client, "t-1");
}

/// A directory of 3.6 is raised here to the levels of 4.3, through a kill and a clean stop, and Kafka
/// finds in it what was there and goes on.
#[test]
fn levels_that_were_raised_here_are_read_by_kafka() {
    if Version::Pinned.is_missing() {
        return;
    }
    let scratch = Scratch::new();
    let dirs = [scratch.join("data")];
    let kafka = KafkaOptions::new(Version::Pinned, &dirs[0]);
    kafka.format(&["--release-version", "3.6"]);
    let broker = chronik(&dirs[0]).start();
    let mut client = connect(&broker);
    let mut seed = Seed::plant(&mut client, false);
    let planted = Picture::take(&mut client);
    assert_eq!(planted.features["metadata.version"], 14);
    let raised = [("metadata.version", 30), ("group.version", 1)];
    let updates = raised.map(|(name, level)| update_features_request::FeatureUpdateKey {
        feature: text(name),
        max_version_level: level,
        ..Default::default()
    });
    let request = UpdateFeaturesRequest {
        feature_updates: updates.into(),
        ..UpdateFeaturesRequest::default()
    };
    let updated = client.call(&request, 2);
    assert_eq!(code(updated.error_code), ErrorCode::None, "{updated:?}");
    // Topics of both levels.
    seed.go_on(&mut client);
    let picture = Picture::take(&mut client);
    broker.kill();
    assert_eq!(picture.features["metadata.version"], 30);
    assert_eq!(picture.features["group.version"], 1);
    let picture = through_chronik(&dirs, &picture, &mut seed);
    let picture = through_kafka(&kafka, &picture, &mut seed);
    through_chronik(&dirs, &picture, &mut seed);
}
