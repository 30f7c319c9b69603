//! SyncGroup (key 14): parked at the coordinator until the leader has assigned.

use std::rc::Rc;

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use chronik_shards::questions::SyncGroup;

use super::{GONE, WAITING_BYTES};
use crate::handlers::api::{Api, Begun, Handled, Shape, Staged};
use crate::handlers::call::Call;
use crate::handlers::context::Context;
use crate::handlers::distinct::{Keep, keep};
use crate::server::service::Pace;

/// From this version on members say which protocol they mean (KIP-559).
const PROTOCOL_VERSION: i16 = 5;

impl Api for SyncGroupRequest {
    const SHAPE: Shape = Shape::Group;

    /// A map of shares.
    fn settle(&mut self) {
        keep(&mut self.assignments, Keep::Last, |share| {
            share.member_id.clone()
        });
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> SyncGroupResponse {
        refused(error)
    }
}

impl Staged for SyncGroupRequest {
    const PACE: Pace = Pace::Alone;

    async fn begin<W: World>(
        context: Rc<Context<W>>,
        call: &mut Call,
        request: Self,
    ) -> Begun<
        SyncGroupResponse,
        impl AsyncFnOnce(&Call) -> Handled<SyncGroupResponse> + 'static + use<W>,
    > {
        call.detach();
        let says_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        if call.version >= PROTOCOL_VERSION && !says_protocol {
            let refused = refused(ErrorCode::InconsistentGroupProtocol);
            return Begun::Done(Handled::Short(refused));
        }
        let asked = context.router.ask_designated(SyncGroup(request)).await;
        let rest = async move |_: &Call| {
            Handled::Short(match asked.await {
                Ok(response) => response,
                Err(_) => refused(GONE),
            })
        };
        Begun::Parked(rest, WAITING_BYTES)
    }
}

fn refused(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: error.as_i16(),
        ..SyncGroupResponse::default()
    }
}
