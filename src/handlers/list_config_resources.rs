//! ListConfigResources (key 74, KIP-1142; ListClientMetricsResources before): what has settings of
//! its own, or can have. Answered from the image.

use std::collections::BTreeSet;

use chronik_io::World;
use chronik_protocol::messages::list_config_resources_response::ConfigResource;
use chronik_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Inline, Shape};
use super::call::Call;
use super::configs::{RESOURCE_BROKER, RESOURCE_CLIENT_METRICS, RESOURCE_GROUP, RESOURCE_TOPIC};
use super::context::Context;
use super::distinct::{Keep, keep};

/// `ConfigResource.Type` of the loggers of a broker.
const RESOURCE_BROKER_LOGGER: i8 = 8;
/// In Kafka's order.
const KNOWN: [i8; 5] = [
    RESOURCE_GROUP,
    RESOURCE_CLIENT_METRICS,
    RESOURCE_BROKER_LOGGER,
    RESOURCE_BROKER,
    RESOURCE_TOPIC,
];

impl Api for ListConfigResourcesRequest {
    const SHAPE: Shape = Shape::Cluster;

    /// A set of types.
    fn settle(&mut self) {
        keep(&mut self.resource_types, Keep::First, |kind| *kind);
    }

    fn refused(&self, _: &Call, error: ErrorCode) -> ListConfigResourcesResponse {
        ListConfigResourcesResponse {
            error_code: error.as_i16(),
            ..ListConfigResourcesResponse::default()
        }
    }
}

impl Inline for ListConfigResourcesRequest {
    fn answer<W: World>(
        context: &Context<W>,
        call: &Call,
        request: Self,
    ) -> ListConfigResourcesResponse {
        let asked: BTreeSet<i8> = match call.version {
            0 => BTreeSet::from([RESOURCE_CLIENT_METRICS]),
            _ if request.resource_types.is_empty() => BTreeSet::from(KNOWN),
            _ => request.resource_types.iter().copied().collect(),
        };
        if asked.iter().any(|kind| !KNOWN.contains(kind)) {
            return request.refused(call, ErrorCode::UnsupportedVersion);
        }
        let image = context.image();
        let mut config_resources = Vec::new();
        for kind in KNOWN.into_iter().filter(|kind| asked.contains(kind)) {
            let names: Vec<Str> = match kind {
                RESOURCE_TOPIC => image.topics().map(|topic| topic.name.clone()).collect(),
                RESOURCE_BROKER | RESOURCE_BROKER_LOGGER => {
                    vec![Str::from(image.node_id.to_string())]
                }
                other => image.others_with_configs(other).cloned().collect(),
            };
            config_resources.extend(names.into_iter().map(|resource_name| ConfigResource {
                resource_name,
                resource_type: kind,
                ..ConfigResource::default()
            }));
        }
        ListConfigResourcesResponse {
            config_resources,
            ..ListConfigResourcesResponse::default()
        }
    }
}
