//! Owns topics that come and go right before a kill: what was acknowledged must have happened, what
//! was not may have, and nothing may be left half done.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use chronik_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use chronik_protocol::{ErrorCode, Uuid};

use crate::Dice;
use crate::support::batch::TestBatch;
use crate::support::calls::{
    code, creatable, create_topic, delete_topic, latest, produce_ok, text,
};
use crate::support::client::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Creation acknowledged with this id.
    Created(Uuid),
    /// Deletion acknowledged.
    Deleted,
    /// Asked for, and killed.
    Unknown,
}

/// Every topic this run has asked for.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    fates: BTreeMap<String, Fate>,
}

impl Topics {
    /// Creates or deletes a topic and waits for the answer; half of the time nothing.
    pub(crate) fn disturb(&mut self, address: SocketAddr, dice: &mut Dice) {
        let mut client = Client::connect(address);
        match dice.below(4) {
            0 => {
                let name = self.unused();
                let id = create_topic(&mut client, &name, 2, &[]);
                self.fates.insert(name, Fate::Created(id));
            }
            1 => {
                if let Some(name) = self.existing() {
                    let deleted = delete_topic(&mut client, &name).expect("an answer");
                    assert_eq!(deleted, ErrorCode::None, "{name}");
                    self.fates.insert(name, Fate::Deleted);
                }
            }
            _ => {}
        }
    }

    /// Asks for a creation or a deletion that will be under way when the broker is killed.
    pub(crate) fn disturb_without_waiting(&mut self, address: SocketAddr, dice: &mut Dice) {
        let mut client = Client::connect(address);
        match dice.below(4) {
            0 => {
                let name = self.unused();
                let topics = vec![creatable(&name, 3, &[])];
                let request = CreateTopicsRequest {
                    topics,
                    timeout_ms: 30_000,
                    ..Default::default()
                };
                client.send(&request, 7);
                self.fates.insert(name, Fate::Unknown);
            }
            1 => {
                if let Some(name) = self.existing() {
                    let request = DeleteTopicsRequest {
                        topic_names: vec![text(&name)],
                        timeout_ms: 30_000,
                        ..Default::default()
                    };
                    client.send(&request, 5);
                    self.fates.insert(name, Fate::Unknown);
                }
            }
            _ => {}
        }
    }

    /// Compares what is there with what was promised; what was open is now decided.
    pub(crate) fn check(&mut self, client: &mut Client) {
        let request = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let topics = client.call(&request, 12).topics;
        let mut there: BTreeMap<String, Uuid> = topics
            .into_iter()
            .map(|topic| (topic.name.unwrap_or_default().to_string(), topic.topic_id))
            .collect();
        there.remove(crate::TOPIC);
        for (name, fate) in &mut self.fates {
            let found = there.remove(name);
            match *fate {
                Fate::Created(id) => assert_eq!(found, Some(id), "{name} was created"),
                Fate::Deleted => assert_eq!(found, None, "{name} was deleted"),
                Fate::Unknown => *fate = found.map_or(Fate::Deleted, Fate::Created),
            }
            if found.is_some() {
                for partition in [0, 1] {
                    let end = latest(client, name, partition);
                    let batch = TestBatch::of_values(["works"]).encode();
                    assert_eq!(produce_ok(client, name, partition, batch), end, "{name}");
                }
            } else {
                let batch = TestBatch::of_values(["gone"]).encode();
                let answer = crate::support::calls::produce(client, name, 0, batch);
                assert_eq!(
                    code(answer.error_code),
                    ErrorCode::UnknownTopicOrPartition,
                    "{name}"
                );
            }
        }
        assert!(there.is_empty(), "topics nobody asked for: {there:?}");
    }

    fn unused(&self) -> String {
        format!("passing-{}", self.fates.len())
    }

    fn existing(&self) -> Option<String> {
        let exists = |fate: &Fate| matches!(fate, Fate::Created(_));
        self.fates
            .iter()
            .find(|(_, fate)| exists(fate))
            .map(|(name, _)| name.clone())
    }
}
