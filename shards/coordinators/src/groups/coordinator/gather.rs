//! Requests over several groups, and so over several partitions: the reply waits for what was
//! written before it in each of them.

use std::collections::BTreeSet;

use chronik_protocol::messages::consumer_group_describe_response::DescribedGroup as ConsumerDescribedGroup;
use chronik_protocol::messages::{DeleteGroupsResponse, ListGroupsResponse};
use chronik_protocol::{ErrorCode, Str};

use super::super::admin::{deleted, not_described};
use super::super::caller::Token;
use super::super::consumer::not_described as not_described_consumer;
use super::super::fetch::fetch_refused;
use super::super::name_filter::NameFilter;
use super::super::outcome::Outcome;
use super::super::request::{CommittedQuery, GroupPage, GroupReply, GroupRequest};
use super::writes::After;
use super::{Coordinator, Env, Status};
use crate::limits::{GROUPS_PER_PAGE, OFFSETS_PER_SLICE};

/// A reply that waits for several partitions.
pub(super) struct Gather {
    token: Token,
    reply: GroupReply,
    missing: usize,
    error: Option<ErrorCode>,
}

impl<R> Coordinator<R> {
    pub(super) fn request_over_groups(
        &mut self,
        env: &mut Env<'_>,
        request: GroupRequest,
        token: Token,
    ) {
        let mut partitions = BTreeSet::new();
        let reply = match request {
            GroupRequest::Describe {
                groups,
                missing_is_error,
            } => {
                let describe = |group: &Str| {
                    let partition = self.partition_of(group);
                    partitions.insert(partition);
                    match self.usable(partition) {
                        Ok(()) => self.entries.get(&partition).map_or_else(
                            || not_described(group, ErrorCode::NotCoordinator),
                            |entry| entry.state.describe(group, missing_is_error),
                        ),
                        Err(error) => not_described(group, error),
                    }
                };
                GroupReply::Describe(groups.iter().map(describe).collect())
            }
            GroupRequest::ConsumerDescribe(groups) => {
                partitions.extend(groups.iter().map(|group| self.partition_of(group)));
                let describe = |group| self.describe_consumer(env, group);
                GroupReply::ConsumerDescribe(groups.iter().map(describe).collect())
            }
            GroupRequest::FetchOffsets { groups } => {
                let mut fetched = Vec::with_capacity(groups.len());
                for group in &groups {
                    let partition = self.partition_of(&group.group_id);
                    partitions.insert(partition);
                    fetched.push(
                        match (self.usable(partition), self.entries.get(&partition)) {
                            (Ok(()), Some(entry)) => entry.state.fetch_offsets(env.image, group),
                            (Err(error), _) => fetch_refused(&group.group_id, error),
                            (Ok(()), None) => {
                                fetch_refused(&group.group_id, ErrorCode::NotCoordinator)
                            }
                        },
                    );
                }
                GroupReply::FetchOffsets(fetched)
            }
            GroupRequest::List {
                states,
                types,
                page,
            } => {
                partitions.extend(self.entries.keys());
                let (response, next) = self.list((&states, &types), &page);
                GroupReply::List(response, next)
            }
            GroupRequest::Delete(groups) => self.delete(env, &groups, &mut partitions),
            GroupRequest::Committed(query) => {
                partitions.extend(self.entries.keys());
                self.committed(&query)
            }
            single => single.refused(ErrorCode::UnknownServerError),
        };
        self.gather(token, reply, &partitions);
    }

    fn describe_consumer(&self, env: &Env<'_>, group: &Str) -> ConsumerDescribedGroup {
        if group.is_empty() {
            return not_described_consumer(group, ErrorCode::InvalidGroupId, None);
        }
        let partition = self.partition_of(group);
        let entry = self.entries.get(&partition);
        let error = match (self.usable(partition), entry) {
            (Ok(()), Some(entry)) => {
                let assignors = &self.settings.consumer.assignors;
                return entry.state.describe_consumer(env.image, assignors, group);
            }
            (Ok(()), None) => ErrorCode::NotCoordinator,
            (Err(error), _) => error,
        };
        not_described_consumer(group, error, None)
    }

    /// A page of the groups that both filters take; with the group that the next one follows.
    fn list(
        &self,
        filters: (&NameFilter, &NameFilter),
        page: &GroupPage,
    ) -> (ListGroupsResponse, Option<Str>) {
        let mut response = ListGroupsResponse::default();
        let loading = || ListGroupsResponse {
            error_code: ErrorCode::CoordinatorLoadInProgress.as_i16(),
            ..ListGroupsResponse::default()
        };
        if self.awaits_partitions() {
            return (loading(), None);
        }
        let after = page.after.as_ref();
        let first = after.map_or(0, |group| self.partition_of(group));
        let mut left = GROUPS_PER_PAGE;
        // A page ends with a group, so that the next one knows where it begins.
        let mut last = after.cloned();
        for (partition, entry) in self.entries.range(first..) {
            match entry.status {
                Status::Active => {}
                Status::Loading | Status::Draining => return (loading(), None),
                // Nobody coordinates its groups.
                Status::Failed => continue,
            }
            let after = after.filter(|_| *partition == first).map(|id| id.as_str());
            let listed = &mut response.groups;
            if let Some(next) = entry.state.list(filters, after, &mut left, listed) {
                return (response, Some(next));
            }
            last = entry.state.last_group().cloned().or(last);
            if left == 0 {
                return (response, last);
            }
        }
        (response, None)
    }

    fn delete(
        &mut self,
        env: &mut Env<'_>,
        groups: &[Str],
        partitions: &mut BTreeSet<i32>,
    ) -> GroupReply {
        let mut results = Vec::with_capacity(groups.len());
        let mut left = OFFSETS_PER_SLICE;
        for group in groups {
            if left == 0 {
                // The others are asked for again.
                break;
            }
            let partition = self.partition_of(group);
            partitions.insert(partition);
            let mut judged = Err(ErrorCode::NotCoordinator);
            match self.usable(partition) {
                Ok(()) => {
                    let written = self.run(env, partition, |state, _| {
                        let mut records = Vec::new();
                        judged = state.delete(group, &mut records);
                        left = left.saturating_sub(records.len());
                        Outcome {
                            records,
                            replay: true,
                            // The group goes last: if the broker stops half way, it can be deleted
                            // again.
                            atomic: false,
                            ..Outcome::NOTHING
                        }
                    });
                    if !written {
                        judged = Err(ErrorCode::UnknownServerError);
                    }
                }
                Err(refusal) => judged = Err(refusal),
            }
            let error = judged.err().unwrap_or(ErrorCode::None);
            results.push(deleted(group, error));
        }
        GroupReply::Delete(DeleteGroupsResponse {
            results,
            ..DeleteGroupsResponse::default()
        })
    }

    fn committed(&self, query: &CommittedQuery) -> GroupReply {
        let first = query
            .after
            .as_ref()
            .map_or(0, |group| self.partition_of(group));
        if self.awaits_partitions() {
            return GroupReply::Committed(Err(ErrorCode::CoordinatorLoadInProgress));
        }
        let mut groups = Vec::new();
        for (partition, entry) in self.entries.range(first..) {
            match entry.status {
                Status::Active => {}
                Status::Failed => continue,
                Status::Loading | Status::Draining => {
                    return GroupReply::Committed(Err(ErrorCode::CoordinatorLoadInProgress));
                }
            }
            let after = query.after.as_deref().filter(|_| *partition == first);
            let room = query.groups_max.saturating_sub(groups.len());
            groups.extend(entry.state.committed(after, room));
        }
        GroupReply::Committed(Ok(groups))
    }

    /// Answers when the last write of each partition so far is committed.
    fn gather(&mut self, token: Token, reply: GroupReply, partitions: &BTreeSet<i32>) {
        let key = self.gathers.vacant_key();
        let mut missing = 0;
        for partition in partitions {
            let entry = self.entries.get_mut(partition);
            if let Some(write) = entry.and_then(|entry| entry.writes.back_mut()) {
                write.after.push(After::Gather(key));
                missing += 1;
            }
        }
        if missing == 0 {
            return self.answer(token, reply);
        }
        self.gathers.insert(Gather {
            token,
            reply,
            missing,
            error: None,
        });
    }

    /// One partition of a gathered reply is done, or failed.
    pub(super) fn gathered(&mut self, key: usize, error: Option<ErrorCode>) {
        let Some(gather) = self.gathers.get_mut(key) else {
            debug_assert!(false, "a part of no reply");
            return;
        };
        gather.missing -= 1;
        gather.error = gather.error.or(error);
        if gather.missing > 0 {
            return;
        }
        let gather = self.gathers.remove(key);
        let reply = match gather.error {
            Some(error) => gather.reply.spoiled(error),
            None => gather.reply,
        };
        self.answer(gather.token, reply);
    }
}
