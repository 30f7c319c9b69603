//! Who may commit and fetch offsets of a consumer group (KIP-848, KIP-1251).

use std::sync::Arc;

use chronik_protocol::{ErrorCode, Str, Uuid};

use super::group::ConsumerGroup;
use super::member::Member;

/// Which partitions a commit is taken for.
#[derive(Clone, Debug)]
pub(crate) enum CommitRight {
    /// All it names.
    All,
    /// From a member that is behind: partitions it has had since its epoch or before.
    Since(Arc<Member>, i32),
}

impl CommitRight {
    /// Whether an offset of this partition is taken.
    ///
    /// # Errors
    /// `STALE_MEMBER_EPOCH`, or `ILLEGAL_GENERATION` for a classic member.
    pub(crate) fn check(&self, topic: Uuid, partition: i32) -> Result<(), ErrorCode> {
        match self {
            CommitRight::All => Ok(()),
            CommitRight::Since(member, epoch) => match member.epoch_of(topic, partition) {
                Some(since) if since <= *epoch => Ok(()),
                _ => Err(stale(member)),
            },
        }
    }
}

fn stale(member: &Member) -> ErrorCode {
    if member.classic.is_some() {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::StaleMemberEpoch
    }
}

impl ConsumerGroup {
    /// Judges a commit by the member and epoch it names. `knows_epochs`: the request is of version 9
    /// at least.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `UNSUPPORTED_VERSION`, `STALE_MEMBER_EPOCH` or `ILLEGAL_GENERATION`.
    pub(crate) fn commit_right(
        &self,
        member_id: &str,
        epoch: i32,
        knows_epochs: bool,
    ) -> Result<CommitRight, ErrorCode> {
        // An operator, or a consumer that assigns itself.
        if epoch < 0 && self.members.is_empty() {
            return Ok(CommitRight::All);
        }
        let member = self.members.get(member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if member.classic.is_none() && !knows_epochs {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.epoch {
            Ok(CommitRight::All)
        } else if epoch > member.epoch {
            Err(stale(member))
        } else {
            Ok(CommitRight::Since(Arc::clone(member), epoch))
        }
    }

    /// Judges a fetch of offsets by the member and epoch it names, if any.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `STALE_MEMBER_EPOCH` or `ILLEGAL_GENERATION`.
    pub(crate) fn check_fetch(&self, member_id: Option<&Str>, epoch: i32) -> Result<(), ErrorCode> {
        let member_id = match member_id {
            None if epoch < 0 => return Ok(()),
            other => other.map_or("", |id| id.as_str()),
        };
        match self.members.get(member_id) {
            None => Err(ErrorCode::UnknownMemberId),
            Some(member) if member.epoch == epoch => Ok(()),
            Some(member) => Err(stale(member)),
        }
    }
}
