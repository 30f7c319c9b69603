//! The metadata quorum: its protocol's version, its voters, who led last.
//!
//! Owns what control records of the metadata log say of it (KIP-595, KIP-853). Pure; a part of the image.

use chronik_protocol::messages::{KRaftVersionRecord, LeaderChangeMessage, VotersRecord};
use chronik_protocol::record::{ControlRecord, ControlType};
use chronik_protocol::{DecodeError, Message, Reader};

/// What the metadata log says of its quorum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quorum {
    /// `kraft.version`: 0 while the voters stand in the settings, 1 when they stand in the log.
    pub version: i16,
    /// The voters, once they stand in the log.
    pub voters: Option<VotersRecord>,
    /// The last leader and the voters of its election.
    pub leader: Option<(i32, Vec<i32>)>,
}

impl Quorum {
    /// Takes over a control record of the log or of a snapshot. They count at once.
    ///
    /// # Errors
    /// When one of those that are known cannot be read.
    pub(crate) fn apply(&mut self, control: &ControlRecord) -> Result<(), DecodeError> {
        let reader = || Reader::new(control.value.clone());
        match control.control_type {
            ControlType::KRaftVersion => {
                let record = KRaftVersionRecord::decode(&mut reader(), 0)?;
                self.version = record.kraft_version;
            }
            ControlType::KRaftVoters => {
                self.voters = Some(VotersRecord::decode(&mut reader(), 0)?);
            }
            ControlType::LeaderChange => {
                // The message begins with its own version.
                let version = control
                    .value
                    .first_chunk()
                    .map_or(0, |v| i16::from_be_bytes(*v));
                let record = LeaderChangeMessage::decode(&mut reader(), version.clamp(0, 1))?;
                let voters = record.voters.iter().map(|voter| voter.voter_id);
                self.leader = Some((record.leader_id, voters.collect()));
            }
            _ => {}
        }
        Ok(())
    }
}
