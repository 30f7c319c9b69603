//! DescribeCluster (key 60): who is in the cluster. Answered from the image.

use chronik_io::World;
use chronik_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use chronik_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Inline, Shape};
use super::call::Call;
use super::context::Context;
use super::operations;

/// `endpoint_type` that asks for brokers; 2 asks for controllers.
const ENDPOINT_TYPE_BROKER: i8 = 1;
const ENDPOINT_TYPE_CONTROLLER: i8 = 2;

impl Api for DescribeClusterRequest {
    const SHAPE: Shape = Shape::Free;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeClusterResponse {
        DescribeClusterResponse {
            error_code: error.as_i16(),
            error_message: None,
            ..DescribeClusterResponse::default()
        }
    }
}

impl Inline for DescribeClusterRequest {
    fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DescribeClusterResponse {
        if request.endpoint_type != ENDPOINT_TYPE_BROKER {
            return mismatch(request.endpoint_type);
        }
        let image = context.image();
        let this = DescribeClusterBroker {
            broker_id: image.node_id,
            host: call.advertised().host.clone(),
            port: call.advertised().port,
            rack: context.config.rack.clone().map(Str::from),
            ..DescribeClusterBroker::default()
        };
        let asked = request.include_cluster_authorized_operations;
        DescribeClusterResponse {
            endpoint_type: ENDPOINT_TYPE_BROKER,
            cluster_id: image.cluster_id.clone(),
            controller_id: image.node_id,
            brokers: vec![this],
            cluster_authorized_operations: if asked {
                operations::CLUSTER
            } else {
                operations::NOT_ASKED
            },
            ..DescribeClusterResponse::default()
        }
    }
}

fn mismatch(endpoint_type: i8) -> DescribeClusterResponse {
    let (error, message) = if endpoint_type == ENDPOINT_TYPE_CONTROLLER {
        let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
        (ErrorCode::MismatchedEndpointType, message.to_owned())
    } else {
        (
            ErrorCode::UnsupportedEndpointType,
            format!("Unsupported endpoint type {endpoint_type}"),
        )
    };
    DescribeClusterResponse {
        error_code: error.as_i16(),
        error_message: Some(Str::from(message)),
        endpoint_type: ENDPOINT_TYPE_BROKER,
        ..DescribeClusterResponse::default()
    }
}
