//! How many connections there may be, as the settings say: `max.connections` and its relatives.
//!
//! Runs on the designated shard whenever settings of the broker change. Looking host names up is left to a
//! thread, for it can take seconds. Never counts connections: the quotas do.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Builder;

use chronik_catalog::Image;
use chronik_io::net::{ConnectionLimits, ConnectionQuotas, ListenerLimits};
use chronik_protocol::configs::keys::broker;
use chronik_protocol::configs::{Key, address_limits};
use tracing::warn;

use crate::config::Listener;

/// Makes the quotas keep what `image` says.
pub(crate) fn apply(quotas: &Arc<ConnectionQuotas>, listeners: &[Listener], image: &Image) {
    let (mut limits, names) = limits_of(listeners, image);
    if names.is_empty() {
        return quotas.change(limits);
    }
    quotas.change(limits.clone());
    let (quotas, settings) = (Arc::clone(quotas), quotas.generation());
    let look_up = move || {
        for (name, count) in names {
            match (name.as_str(), 0).to_socket_addrs() {
                Ok(found) => {
                    let addresses = found.map(|found| (found.ip().to_canonical(), count));
                    limits.overrides.extend(addresses);
                }
                Err(error) => {
                    warn!(%name, %error, "max.connections.per.ip.overrides names a host that is not known");
                }
            }
        }
        quotas.change_if(settings, limits);
    };
    let thread = Builder::new().name("look-up".to_owned()).spawn(look_up);
    if let Err(error) = thread {
        warn!(%error, "max.connections.per.ip.overrides: hosts cannot be looked up");
    }
}

/// What addresses and hosts may have, each once. As in Kafka, a setting made at run time takes the place of
/// the file's and can shut everybody out, who made it included. Who the file (environment, command line)
/// names with a number is not shut out: that and a restart is the way back.
fn address_counts(image: &Image, per_address_max: usize) -> Vec<(String, usize)> {
    let entries = |text: &str| -> Vec<(String, usize)> {
        let entries = address_limits(text).unwrap_or_default().into_iter();
        let owned = entries.map(|(host, count)| match host.parse::<IpAddr>() {
            Ok(address) => (address.to_canonical().to_string(), count),
            Err(_) => (host.to_owned(), count),
        });
        owned.collect()
    };
    let configs = &image.broker_configs;
    let key = broker::MAX_CONNECTIONS_PER_IP_OVERRIDES;
    let holds = configs.get(image.node_id, key);
    let mut counts: HashMap<String, usize> = entries(&holds).into_iter().collect();
    let file = key.among(&configs.static_broker);
    for (host, count) in entries(&file) {
        let held = counts.entry(host).or_insert(per_address_max);
        if *held == 0 {
            *held = count;
        }
    }
    let nobody = || counts.iter().filter(|(_, count)| **count == 0);
    let shut_out: Vec<&str> = nobody().map(|(host, _)| &**host).collect();
    if !shut_out.is_empty() || per_address_max == 0 {
        let others = per_address_max == 0;
        warn!(
            ?shut_out,
            others_not_named = others,
            "max.connections.per.ip(.overrides) lets nobody connect from there; the way back: a number for the \
             address in max.connections.per.ip.overrides of the file or the command line, and a restart"
        );
    }
    counts.into_iter().collect()
}

/// The limits, and the hosts whose addresses are still to be found.
fn limits_of(listeners: &[Listener], image: &Image) -> (ConnectionLimits, Vec<(String, usize)>) {
    let (configs, node_id) = (&image.broker_configs, image.node_id);
    let count = |number: i32| usize::try_from(number).unwrap_or(usize::MAX);
    // The greatest number is no limit.
    let rate = |number: i32| u32::try_from(number).ok().filter(|_| number < i32::MAX);
    let per_address_max = count(configs.get(node_id, broker::MAX_CONNECTIONS_PER_IP));
    let (mut overrides, mut names) = (HashMap::new(), Vec::new());
    for (host, count) in address_counts(image, per_address_max) {
        match host.parse::<IpAddr>() {
            Ok(address) => drop(overrides.insert(address, count)),
            Err(_) => names.push((host, count)),
        }
    }
    let of_listeners = listeners.iter().enumerate().map(|(number_of, listener)| {
        let own = |key: Key<i32>| configs.of_listener(node_id, &listener.name, key);
        let own = ListenerLimits {
            connections_max: own(broker::MAX_CONNECTIONS).map_or(usize::MAX, count),
            per_second_max: own(broker::MAX_CONNECTION_CREATION_RATE).and_then(rate),
        };
        (number_of, own)
    });
    let limits = ConnectionLimits {
        connections_max: count(configs.get(node_id, broker::MAX_CONNECTIONS)),
        per_address_max,
        overrides,
        per_second_max: rate(configs.get(node_id, broker::MAX_CONNECTION_CREATION_RATE)),
        of_listeners: of_listeners.collect(),
    };
    (limits, names)
}
