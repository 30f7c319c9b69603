//! The `quorum-state` file, and who led the metadata quorum last.
//!
//! Owns the file's format, which is Kafka's. The quorum is one of one; that it is, `survey` checks before
//! anything begins. Runs on the designated shard at start.

use std::io;
use std::path::Path;

use chronik_io::World;

use super::metadata_directory;

/// Bytes of the file that are read; real ones have a hundred.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// The name of the file with the metadata quorum's last epoch, inside the metadata log's directory.
pub(crate) const QUORUM_STATE: &str = "quorum-state";

/// The metadata quorum as this node last saw it (`QuorumStateData` as JSON). It is a quorum of one, so
/// that only the epoch is worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuorumState {
    /// −1 while there was none.
    leader_id: i32,
    /// Never goes back.
    pub(crate) leader_epoch: i32,
    /// While the voters stand in the settings; otherwise none.
    voters: Vec<i32>,
}

impl QuorumState {
    /// This node leads since `leader_epoch`, alone.
    pub(crate) fn leading(node_id: i32, leader_epoch: i32) -> QuorumState {
        QuorumState {
            leader_id: node_id,
            leader_epoch,
            voters: vec![node_id],
        }
    }

    /// Everybody it names: the leader, and the voters as far as they stand there.
    pub(crate) fn members(&self) -> impl Iterator<Item = i32> {
        let leader = Some(self.leader_id).filter(|id| *id >= 0);
        leader.into_iter().chain(self.voters.iter().copied())
    }

    fn parse(content: &[u8]) -> Option<QuorumState> {
        let value: serde_json::Value = serde_json::from_slice(content).ok()?;
        let number = |key: &str| i32::try_from(value.get(key)?.as_i64()?).ok();
        let voters = value
            .get("currentVoters")
            .and_then(|voters| voters.as_array());
        let voters = voters
            .into_iter()
            .flatten()
            .filter_map(|voter| i32::try_from(voter.get("voterId")?.as_i64()?).ok());
        Some(QuorumState {
            leader_id: number("leaderId")?,
            leader_epoch: number("leaderEpoch")?,
            voters: voters.collect(),
        })
    }

    /// In Kafka's order of keys. With voters in the log (`kraft.version` 1) the file names none.
    fn to_json(&self, kraft_version: i16) -> String {
        let QuorumState {
            leader_id,
            leader_epoch,
            ..
        } = self;
        if kraft_version > 0 {
            return format!(
                "{{\"leaderId\":{leader_id},\"leaderEpoch\":{leader_epoch},\"votedId\":-1,\
                 \"votedDirectoryId\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"data_version\":1}}"
            );
        }
        format!(
            "{{\"clusterId\":\"\",\"leaderId\":{leader_id},\"leaderEpoch\":{leader_epoch},\
             \"votedId\":-1,\"appliedOffset\":0,\"currentVoters\":[{{\"voterId\":{leader_id}}}],\
             \"data_version\":0}}"
        )
    }

    /// Reads the file of `directory`; `None` when it is missing or cannot be understood (the log's
    /// own epochs then say enough).
    pub(crate) async fn load<W: World>(
        world: &W,
        directory: &Path,
    ) -> io::Result<Option<QuorumState>> {
        let path = directory.join(QUORUM_STATE);
        match world.read_file(&path, FILE_BYTES_MAX).await {
            Ok(content) => {
                let state = QuorumState::parse(&content);
                if state.is_none() {
                    tracing::warn!(path = %path.display(), "quorum state passed over");
                }
                Ok(state)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the file as this `kraft.version` has it; durable when this returns.
    pub(crate) async fn store<W: World>(
        &self,
        world: &W,
        directory: &Path,
        kraft_version: i16,
    ) -> io::Result<()> {
        let content = self.to_json(kraft_version);
        world
            .write_file_atomic(&directory.join(QUORUM_STATE), content.as_bytes())
            .await
    }
}

/// The file with the epoch in which this broker led last. An Apache Kafka does not know it, so that
/// another epoch in `quorum-state` tells that one led since.
const LED_EPOCH_FILE: &str = "chronik-epoch";

/// An epoch in which this broker led the metadata quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LedEpoch(pub(crate) i32);

impl LedEpoch {
    /// Remembers it beside the logs of `data`; durable when this returns.
    pub(crate) async fn store<W: World>(self, world: &W, data: &Path) -> io::Result<()> {
        let content = format!("{}\n", self.0);
        let path = data.join(LED_EPOCH_FILE);
        world.write_file_atomic(&path, content.as_bytes()).await
    }

    /// Whether this broker led the metadata quorum of `data` last. Doubt counts as no.
    pub(crate) async fn is_last<W: World>(world: &W, data: &Path) -> bool {
        let path = data.join(LED_EPOCH_FILE);
        let Ok(content) = world.read_file(&path, FILE_BYTES_MAX).await else {
            return false;
        };
        let text = std::str::from_utf8(&content).unwrap_or_default();
        let ours = text.trim().parse::<i32>().ok();
        let state = QuorumState::load(world, &metadata_directory(data)).await;
        let theirs = state.ok().flatten().map(|state| state.leader_epoch);
        ours.is_some() && ours == theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Kafka 4.3.1.
    const STATIC: &str = r#"{"clusterId":"","leaderId":1,"leaderEpoch":1,"votedId":-1,"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}"#;
    const DYNAMIC: &str = r#"{"leaderId":1,"leaderEpoch":1,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;

    #[test]
    fn quorum_state_is_kafkas_to_the_byte() {
        for (version, text) in [(0, STATIC), (1, DYNAMIC)] {
            let state = QuorumState::parse(text.as_bytes()).expect("Kafka's file");
            assert_eq!((state.leader_epoch, state.leader_id), (1, 1));
            assert_eq!(state.to_json(version), text);
            assert!(state.members().all(|id| id == 1));
        }
        let observer = STATIC
            .replace("\"leaderId\":1", "\"leaderId\":-1")
            .replace("{\"voterId\":1}", "{\"voterId\":7},{\"voterId\":8}");
        let observer = QuorumState::parse(observer.as_bytes()).expect("an observer's file");
        assert_eq!(observer.members().collect::<Vec<_>>(), [7, 8]);
        assert_eq!(QuorumState::parse(b"{}"), None);
    }
}
