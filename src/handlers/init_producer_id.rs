//! InitProducerId (key 22): ids for idempotent producers (KIP-98).
//!
//! The controller hands them out; none is ever given twice, whatever stops the broker.

use chronik_io::World;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use chronik_shards::questions::AllocateProducerId;

use super::api::{Api, Later, Shape};
use super::call::Call;
use super::context::Context;

impl Api for InitProducerIdRequest {
    const SHAPE: Shape = Shape::TransactionalId;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> InitProducerIdResponse {
        refused(error)
    }
}

impl Later for InitProducerIdRequest {
    async fn answer<W: World>(
        context: &Context<W>,
        _: &Call,
        request: Self,
    ) -> InitProducerIdResponse {
        let allocated = match refusal(&request) {
            Some(error) => Err(error),
            None => allocate(context).await,
        };
        match allocated {
            Ok(producer_id) => InitProducerIdResponse {
                producer_id,
                producer_epoch: 0,
                ..InitProducerIdResponse::default()
            },
            Err(error) => refused(error),
        }
    }
}

fn refused(error: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: error.as_i16(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}

fn refusal(request: &InitProducerIdRequest) -> Option<ErrorCode> {
    match request.transactional_id.as_deref() {
        Some("") => return Some(ErrorCode::InvalidRequest),
        // There is no transaction coordinator: the error is final, so that producers say so
        // instead of asking for ever.
        Some(_) => return Some(ErrorCode::UnsupportedVersion),
        None => {}
    }
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    let both_or_none = (id == -1) == (epoch == -1);
    (!both_or_none).then_some(ErrorCode::InvalidRequest)
}

async fn allocate<W: World>(context: &Context<W>) -> Result<i64, ErrorCode> {
    match context
        .router
        .ask_designated(AllocateProducerId {})
        .await
        .await
    {
        Ok(result) => result.map_err(|error| error.code),
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
    }
}
