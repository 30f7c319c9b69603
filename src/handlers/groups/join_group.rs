//! JoinGroup (key 11): parked at the coordinator until the group is complete.

use std::collections::HashMap;
use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use chronik_protocol::{ErrorCode, Str};
use chronik_shards::questions::JoinGroup;

use super::{GONE, WAITING_BYTES, caller};
use crate::handlers::api::{Api, Begun, Handled, Shape, Staged};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::distinct::{Keep, keep};
use crate::server::service::Pace;

/// From this version on the time for a rebalance is told apart from the session's.
const REBALANCE_TIMEOUT_VERSION: i16 = 1;
/// From this version on new members come again with the id they are given (KIP-394).
const KNOWN_MEMBER_ID_VERSION: i16 = 4;
/// From this version on a response need not name a protocol.
const NULLABLE_PROTOCOL_VERSION: i16 = 7;
/// From this version on a leader can be told that nothing is to be assigned (KIP-814).
const SKIP_ASSIGNMENT_VERSION: i16 = 9;

impl Api for JoinGroupRequest {
    const SHAPE: Shape = Shape::Group;

    /// A protocol that is named twice counts twice, so that no count of members ever agrees with it
    /// (`ClassicGroup#candidateProtocols`): another one is chosen.
    fn settle(&mut self) {
        let mut seen: HashMap<Str, bool> = HashMap::new();
        for protocol in &self.protocols {
            let again = seen.contains_key(&protocol.name);
            seen.insert(protocol.name.clone(), again);
        }
        let once = |name: &Str| seen.get(name) == Some(&false);
        if self.protocols.iter().any(|protocol| once(&protocol.name)) {
            self.protocols.retain(|protocol| once(&protocol.name));
        } else {
            keep(&mut self.protocols, Keep::First, |protocol| {
                protocol.name.clone()
            });
        }
    }

    fn refused(&self, call: &Call, error: ErrorCode) -> JoinGroupResponse {
        refused(call.version, error)
    }
}

impl Staged for JoinGroupRequest {
    const PACE: Pace = Pace::Alone;

    async fn begin<W: World>(
        context: Rc<Context<W>>,
        call: &mut Call,
        mut request: Self,
    ) -> Begun<
        JoinGroupResponse,
        impl AsyncFnOnce(&Call) -> Handled<JoinGroupResponse> + 'static + use<W>,
    > {
        call.detach();
        if call.version < REBALANCE_TIMEOUT_VERSION {
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        let asked = context.router.ask_designated(JoinGroup {
            request,
            caller: caller(call),
            known_member_id: call.version >= KNOWN_MEMBER_ID_VERSION,
            skip_assignment: call.version >= SKIP_ASSIGNMENT_VERSION,
        });
        let asked = asked.await;
        let rest = async move |call: &Call| {
            let mut response = match asked.await {
                Ok(response) => response,
                Err(_) => refused(call.version, GONE),
            };
            if response.error_code != 0 {
                response.protocol_name = None;
            }
            if call.version < NULLABLE_PROTOCOL_VERSION {
                response.protocol_name.get_or_insert_default();
            }
            Handled::Short(response)
        };
        Begun::Parked(rest, WAITING_BYTES)
    }
}

fn refused(version: i16, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.as_i16(),
        protocol_name: (version < NULLABLE_PROTOCOL_VERSION).then(Str::default),
        ..JoinGroupResponse::default()
    }
}
