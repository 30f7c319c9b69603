//! One member: it joins, sends heartbeats, and follows each rebalance until the run ends.
//!
//! Blocks its thread on its connection, as a client's heartbeat thread does.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};
use std::{io, iter};

use bytes::Bytes;
use chronik_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerProtocolSubscription, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
    consumer_group_heartbeat_request, join_group_request, leave_group_request, sync_group_request,
};
use chronik_protocol::{ErrorCode, Message, Request, Str, Writer};

use super::{Assigned, Protocol, Stage, TOPIC};
use crate::rpc::{Rpc, invalid};

/// The id of a member that is not in a group of the new protocol any more.
const LEAVING: i32 = -1;
/// Pause between two attempts while the broker creates the offsets topic.
const STEP: Duration = Duration::from_millis(100);
/// A long session timeout: expiry is not measured.
const PATIENCE_MS: i32 = 60_000;
const SESSION_MS: i32 = 45_000;

/// One member of one group.
pub(super) struct Member<'a> {
    stage: &'a Stage,
    teller: &'a Sender<Assigned>,
    rpc: Rpc,
    /// Numbers of the group and of the member in it.
    place: (usize, usize),
    group: Str,
    id: Str,
    epoch: i32,
    held: Vec<i32>,
    due: Instant,
}

fn checked(error: i16) -> io::Result<ErrorCode> {
    ErrorCode::try_from(error).map_err(|_| invalid(format!("unknown error code {error}")))
}

/// True when the coordinator is not ready: the offsets topic was only just created.
fn is_starting(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator
    )
}

fn refused(what: &str, error: ErrorCode) -> io::Error {
    invalid(format!("{what} was refused: {error:?}"))
}

impl<'a> Member<'a> {
    /// Runs until the end of the measurement.
    ///
    /// # Errors
    /// The connection's, and an unexpected refusal by the broker.
    pub(super) fn live(
        stage: &'a Stage,
        teller: &'a Sender<Assigned>,
        place: (usize, usize),
        phase: Duration,
    ) -> io::Result<()> {
        let mut member = Member {
            stage,
            teller,
            rpc: Rpc::connect(stage.target)?,
            place,
            group: Str::from(format!("group-{}", place.0)),
            id: Str::from(format!("member-{}-{}", place.0, place.1)),
            epoch: 0,
            held: Vec::new(),
            due: Instant::now() + phase,
        };
        member.await_coordinator()?;
        match stage.protocol {
            Protocol::Classic => member.live_classic(),
            Protocol::Consumer => member.live_consumer(),
        }
    }

    fn is_over(&self) -> bool {
        self.stage.over.load(Ordering::Relaxed)
    }

    /// True once, when this member is to disturb the group.
    fn is_restless(&self) -> bool {
        self.place == (0, 0) && self.stage.restless.swap(false, Ordering::Relaxed)
    }

    fn tell(&self) {
        let assigned = Assigned {
            group: self.place.0,
            member: self.place.1,
            epoch: self.epoch,
            partitions: self.held.len(),
        };
        // The receiver is gone after the run's end.
        let _unheard = self.teller.send(assigned);
    }

    /// Sleeps until the next heartbeat is due, and counts it.
    fn wait(&mut self) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        while self.due <= Instant::now() {
            self.due += self.stage.heartbeat;
        }
        self.stage.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls, and keeps the time of the slowest answer.
    fn timed<R: Request>(&mut self, request: &R) -> io::Result<R::Response> {
        let sent = Instant::now();
        let response = self.rpc.call(request)?;
        let took_us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stage.slowest_us.fetch_max(took_us, Ordering::Relaxed);
        Ok(response)
    }

    fn await_coordinator(&mut self) -> io::Result<()> {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec![self.group.clone()],
            ..Default::default()
        };
        loop {
            let response = self.rpc.call(&request)?;
            let error = response.coordinators.first().map_or(0, |c| c.error_code);
            match checked(error)? {
                ErrorCode::None => return Ok(()),
                ErrorCode::CoordinatorNotAvailable => thread::sleep(STEP),
                error => return Err(refused("FindCoordinator", error)),
            }
        }
    }

    fn live_classic(&mut self) -> io::Result<()> {
        self.id = Str::default();
        while !self.is_over() {
            let joined = self.join()?;
            if self.sync(&joined)? {
                self.tell();
                self.beat()?;
            }
        }
        Ok(())
    }

    fn join(&mut self) -> io::Result<JoinGroupResponse> {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Str::from_static(TOPIC)],
            ..Default::default()
        };
        let mut metadata = Writer::new();
        metadata.put_i16(1);
        subscription.encode(&mut metadata, 1).map_err(invalid)?;
        let metadata = metadata.into_bytes();
        loop {
            let request = JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: SESSION_MS,
                rebalance_timeout_ms: PATIENCE_MS,
                member_id: self.id.clone(),
                protocol_type: Str::from_static("consumer"),
                protocols: vec![join_group_request::JoinGroupRequestProtocol {
                    name: Str::from_static("range"),
                    metadata: metadata.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            };
            let response = self.rpc.call(&request)?;
            match checked(response.error_code)? {
                ErrorCode::None => {
                    self.id = response.member_id.detached();
                    self.epoch = response.generation_id;
                    return Ok(response);
                }
                ErrorCode::MemberIdRequired => self.id = response.member_id.detached(),
                error if is_starting(error) => thread::sleep(STEP),
                error => return Err(refused("JoinGroup", error)),
            }
        }
    }

    /// Syncs and takes the assignment; false when the group rebalances again. The leader assigns partitions in turn,
    /// one number each.
    fn sync(&mut self, joined: &JoinGroupResponse) -> io::Result<bool> {
        let mut shares = vec![Vec::new(); joined.members.len()];
        for (partition, turn) in (0..self.stage.partitions).zip((0..shares.len()).cycle()) {
            shares[turn].extend(partition.to_be_bytes());
        }
        let assignments = iter::zip(&joined.members, shares).map(|(member, share)| {
            sync_group_request::SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::from(share),
                ..Default::default()
            }
        });
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: self.epoch,
            member_id: self.id.clone(),
            protocol_type: Some(Str::from_static("consumer")),
            protocol_name: Some(Str::from_static("range")),
            assignments: assignments.collect(),
            ..Default::default()
        };
        let response = self.rpc.call(&request)?;
        match checked(response.error_code)? {
            ErrorCode::None => {
                let numbers = response.assignment.as_chunks::<4>().0.iter();
                self.held = numbers.map(|bytes| i32::from_be_bytes(*bytes)).collect();
                Ok(true)
            }
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => Ok(false),
            error => Err(refused("SyncGroup", error)),
        }
    }

    /// Sends heartbeats until the group rebalances.
    fn beat(&mut self) -> io::Result<()> {
        while !self.is_over() {
            self.wait();
            if self.is_restless() {
                return self.leave_classic();
            }
            let request = HeartbeatRequest {
                group_id: self.group.clone(),
                generation_id: self.epoch,
                member_id: self.id.clone(),
                ..Default::default()
            };
            let response = self.timed(&request)?;
            match checked(response.error_code)? {
                ErrorCode::None => {}
                ErrorCode::RebalanceInProgress => return Ok(()),
                error => return Err(refused("Heartbeat", error)),
            }
        }
        Ok(())
    }

    fn leave_classic(&mut self) -> io::Result<()> {
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![leave_group_request::MemberIdentity {
                member_id: std::mem::take(&mut self.id),
                ..Default::default()
            }],
            ..Default::default()
        };
        match checked(self.rpc.call(&request)?.error_code)? {
            ErrorCode::None => Ok(()),
            error => Err(refused("LeaveGroup", error)),
        }
    }

    fn live_consumer(&mut self) -> io::Result<()> {
        let mut news = true;
        while !self.is_over() {
            if self.epoch != 0 {
                self.wait();
                if self.is_restless() {
                    self.beat_consumer(LEAVING, false)?;
                    (self.epoch, news) = (0, true);
                    self.held.clear();
                }
            }
            news = self.beat_consumer(self.epoch, news)?;
        }
        Ok(())
    }

    /// One heartbeat; true when the assignment changed, which the next one reports.
    fn beat_consumer(&mut self, epoch: i32, is_full: bool) -> io::Result<bool> {
        let owned = consumer_group_heartbeat_request::TopicPartitions {
            topic_id: self.stage.topic_id,
            partitions: self.held.clone(),
            ..Default::default()
        };
        let owned = (!self.held.is_empty()).then_some(owned);
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: epoch,
            rebalance_timeout_ms: if epoch == 0 { PATIENCE_MS } else { -1 },
            subscribed_topic_names: (epoch == 0).then(|| vec![Str::from_static(TOPIC)]),
            topic_partitions: is_full.then(|| owned.into_iter().collect()),
            ..Default::default()
        };
        let response = self.timed(&request)?;
        match checked(response.error_code)? {
            ErrorCode::None => {}
            error if is_starting(error) => {
                thread::sleep(STEP);
                return Ok(is_full);
            }
            error => return Err(refused("ConsumerGroupHeartbeat", error)),
        }
        if epoch == LEAVING {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.epoch, response.member_epoch);
        let news = response.assignment.is_some();
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions.into_iter();
            self.held = topics.flat_map(|topic| topic.partitions).collect();
        }
        if news || before != self.epoch {
            self.tell();
        }
        Ok(news)
    }
}
