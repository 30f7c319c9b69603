//! How many connections there may be, as the settings say: `max.connections` and its relatives.
//!
//! Runs on the designated shard whenever settings of the broker change. Looking host names up is left to a
//! thread, for it can take seconds. Never counts connections; the door does.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Builder;

use chronik_catalog::Image;
use chronik_io::net::{Door, DoorLimits, ListenerLimits};
use chronik_protocol::configs::address_limits;
use tracing::warn;

use crate::config::Listener;

/// Makes the door keep what `image` says.
pub(crate) fn apply(door: &Arc<Door>, listeners: &[Listener], image: &Image) {
    let (mut limits, names) = limits_of(listeners, image);
    if names.is_empty() {
        return door.change(limits);
    }
    door.change(limits.clone());
    let (door, settings) = (Arc::clone(door), door.generation());
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
        door.change_if(settings, limits);
    };
    let thread = Builder::new().name("look-up".to_owned()).spawn(look_up);
    if let Err(error) = thread {
        warn!(%error, "max.connections.per.ip.overrides: hosts cannot be looked up");
    }
}

/// The setting that counts addresses apart.
const OVERRIDES: &str = "max.connections.per.ip.overrides";

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
    let holds = configs.value(image.node_id, OVERRIDES).unwrap_or_default();
    let mut counts: HashMap<String, usize> = entries(&holds).into_iter().collect();
    let file = configs.static_broker.get(OVERRIDES).cloned();
    for (host, count) in entries(&file.unwrap_or_default()) {
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
fn limits_of(listeners: &[Listener], image: &Image) -> (DoorLimits, Vec<(String, usize)>) {
    let (configs, node_id) = (&image.broker_configs, image.node_id);
    let number = |name: &str| configs.parsed::<usize>(node_id, name);
    let rate = |name: &str| {
        let set = configs.parsed::<u32>(node_id, name);
        set.filter(|rate| *rate < i32::MAX.unsigned_abs())
    };
    let per_address_max = number("max.connections.per.ip").unwrap_or(usize::MAX);
    let (mut overrides, mut names) = (HashMap::new(), Vec::new());
    for (host, count) in address_counts(image, per_address_max) {
        match host.parse::<IpAddr>() {
            Ok(address) => drop(overrides.insert(address, count)),
            Err(_) => names.push((host, count)),
        }
    }
    let of_listeners = listeners.iter().enumerate().map(|(number_of, listener)| {
        let prefix = format!("listener.name.{}", listener.name.to_ascii_lowercase());
        let own = ListenerLimits {
            connections_max: number(&format!("{prefix}.max.connections")).unwrap_or(usize::MAX),
            per_second_max: rate(&format!("{prefix}.max.connection.creation.rate")),
        };
        (number_of, own)
    });
    let limits = DoorLimits {
        connections_max: number("max.connections").unwrap_or(usize::MAX),
        per_address_max,
        overrides,
        per_second_max: rate("max.connection.creation.rate"),
        of_listeners: of_listeners.collect(),
    };
    (limits, names)
}
