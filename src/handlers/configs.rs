//! The settings of a resource as DescribeConfigs and CreateTopics tell them: value, where it comes
//! from, and every place that could have given it. Pure; reads the image.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chronik_catalog::{Image, Topic, broker_setting_behind, is_dynamic_broker_config};
use chronik_protocol::Str;
use chronik_protocol::configs::keys::broker;
use chronik_protocol::configs::{self, ConfigDef, ConfigType, Scope};
use chronik_terms::topic_settings::{ConfigSource, broker_synonyms};

/// `ConfigResource.Type` of topics.
pub(super) const RESOURCE_TOPIC: i8 = 2;
/// `ConfigResource.Type` of brokers.
pub(super) const RESOURCE_BROKER: i8 = 4;
/// `ConfigResource.Type` of client metrics subscriptions.
pub(super) const RESOURCE_CLIENT_METRICS: i8 = 16;
/// `ConfigResource.Type` of groups.
pub(super) const RESOURCE_GROUP: i8 = 32;

/// One place that gives a setting a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Synonym {
    pub(super) name: Str,
    pub(super) value: Option<Str>,
    pub(super) source: i8,
}

/// One setting.
pub(super) struct Setting {
    pub(super) definition: &'static ConfigDef,
    /// The definition's, or that of a listener's own.
    pub(super) name: Str,
    pub(super) value: Option<Str>,
    pub(super) source: i8,
    pub(super) read_only: bool,
    pub(super) is_sensitive: bool,
    /// The strongest first; the first one holds.
    pub(super) synonyms: Vec<Synonym>,
}

/// The number DescribeConfigs gives a type (`DescribeConfigsResponse.ConfigType`).
pub(super) fn type_number(kind: ConfigType) -> i8 {
    match kind {
        ConfigType::Boolean => 1,
        ConfigType::String => 2,
        ConfigType::Int => 3,
        ConfigType::Short => 4,
        ConfigType::Long => 5,
        ConfigType::Double => 6,
        ConfigType::List => 7,
        ConfigType::Class => 8,
        ConfigType::Password => 9,
    }
}

/// The broker settings that stand behind one another, the strongest first
/// (`DynamicBrokerConfig#brokerConfigSynonyms`).
const BROKER_SYNONYMS: [&[&str]; 4] = [
    &[
        broker::LOG_RETENTION_MS.name(),
        broker::LOG_RETENTION_MINUTES.name(),
        broker::LOG_RETENTION_HOURS.name(),
    ],
    &[broker::LOG_ROLL_MS.name(), broker::LOG_ROLL_HOURS.name()],
    &[
        broker::LOG_ROLL_JITTER_MS.name(),
        broker::LOG_ROLL_JITTER_HOURS.name(),
    ],
    &[
        broker::LOG_FLUSH_INTERVAL_MS.name(),
        broker::LOG_FLUSH_SCHEDULER_INTERVAL_MS.name(),
    ],
];

/// Every place that gives the broker's setting `name` a value, the strongest first. What is stronger
/// than the first of that very name is left out, as Kafka leaves it out: a value of `log.retention.hours`
/// is none of `log.retention.ms`.
fn broker_places(image: &Image, name: &str) -> Vec<Synonym> {
    let behind = BROKER_SYNONYMS.iter().find(|names| names.contains(&name));
    let of_listener = configs::of_listener(name).map(|(_, definition)| definition.name);
    let names: Vec<&str> = match behind {
        Some(names) => names.to_vec(),
        None => [name].into_iter().chain(of_listener).collect(),
    };
    let layers = &image.broker_configs;
    let sources: [(&BTreeMap<Str, Str>, ConfigSource); 3] = [
        (
            layers.dynamic_broker(image.node_id),
            ConfigSource::DynamicBroker,
        ),
        (&layers.dynamic_default, ConfigSource::DynamicDefaultBroker),
        (&layers.static_broker, ConfigSource::StaticBroker),
    ];
    let given = sources.iter().flat_map(|(layer, source)| {
        let values = names
            .iter()
            .filter_map(|name| Some((*name, layer.get(*name)?)));
        values.map(|(name, value)| Synonym {
            name: Str::from(name),
            value: Some(value.clone()),
            source: *source as i8,
        })
    });
    let defaults = names.iter().filter_map(|name| {
        Some(Synonym {
            name: Str::from(*name),
            value: Some(default_of(configs::broker(name)?)?),
            source: ConfigSource::Default as i8,
        })
    });
    let places = given.chain(defaults);
    places.skip_while(|place| *place.name != *name).collect()
}

/// Which settings of a resource are asked for: looked at before one is put together.
pub(super) struct Wanted<'a>(Option<HashSet<&'a str>>);

impl<'a> Wanted<'a> {
    /// All of them.
    pub(super) const ALL: Wanted<'static> = Wanted(None);

    /// Those with these names; no names ask for all.
    pub(super) fn of(names: Option<&'a [Str]>) -> Self {
        let names = names.filter(|names| !names.is_empty());
        Self(names.map(|names| names.iter().map(Str::as_str).collect()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

/// Settings of a topic.
pub(super) fn of_topic(image: &Image, topic: &Topic, wanted: &Wanted<'_>) -> Vec<Setting> {
    let layers = image.layers(&topic.configs);
    let setting = |definition: &'static ConfigDef| {
        let name = definition.name;
        let own = topic.configs.get(name);
        let own = own.map(|value| own_place(definition, value, ConfigSource::Topic));
        // The places of the strongest broker setting behind it.
        let behind = broker_synonyms(name).first();
        let behind = behind.map(|(strongest, _)| broker_places(image, strongest));
        let places = own.into_iter().chain(behind.into_iter().flatten());
        let value = layers.effective(name).or_else(|| default_of(definition));
        Setting::of(definition, name, value, places.collect())
    };
    let all = configs::all(Scope::Topic);
    all.filter(|definition| wanted.has(definition.name))
        .map(setting)
        .collect()
}

/// Settings of this broker, and those that its listeners have of their own.
pub(super) fn of_broker(image: &Image, wanted: &Wanted<'_>) -> Vec<Setting> {
    let layers = &image.broker_configs;
    let setting = |definition: &'static ConfigDef, name: &str| {
        let value = layers.value(image.node_id, name);
        let value = value.or_else(|| default_of(definition));
        let mut setting = Setting::of(definition, name, value, broker_places(image, name));
        setting.read_only = !is_dynamic_broker_config(name);
        setting.hide_password();
        setting
    };
    let given = [
        layers.dynamic_broker(image.node_id),
        &layers.dynamic_default,
        &layers.static_broker,
    ];
    let of_listeners: BTreeSet<&Str> = given.iter().flat_map(|layer| layer.keys()).collect();
    let of_listeners = of_listeners
        .into_iter()
        .filter(|name| wanted.has(name))
        .filter_map(|name| Some(setting(configs::of_listener(name)?.1, name)));
    let all = configs::all(Scope::Broker).filter(|definition| wanted.has(definition.name));
    let all = all.map(|definition| setting(definition, definition.name));
    all.chain(of_listeners).collect()
}

/// The settings made at run time for all brokers, as they were given.
pub(super) fn of_all_brokers(image: &Image, wanted: &Wanted<'_>) -> Vec<Setting> {
    let made = image.broker_configs.dynamic_default.iter();
    let made = made.filter(|(name, _)| wanted.has(name));
    made.filter_map(|(name, value)| {
        let of_listener = || configs::of_listener(name).map(|(_, definition)| definition);
        let definition = configs::broker(name).or_else(of_listener)?;
        let synonym = Synonym {
            name: name.clone(),
            value: Some(value.clone()),
            source: ConfigSource::DynamicDefaultBroker as i8,
        };
        let mut setting = Setting::of(definition, name, Some(value.clone()), vec![synonym]);
        setting.read_only = !is_dynamic_broker_config(name);
        setting.hide_password();
        Some(setting)
    })
    .collect()
}

/// Settings of a group; it need not exist.
pub(super) fn of_group(image: &Image, group: &str, wanted: &Wanted<'_>) -> Vec<Setting> {
    let own = image.other_configs(RESOURCE_GROUP, group);
    let setting = |definition: &'static ConfigDef| {
        let own = own.and_then(|own| own.get(definition.name));
        let own = own.map(|value| own_place(definition, value, ConfigSource::Group));
        let behind = match broker_setting_behind(definition.name) {
            Some(behind) => broker_places(image, behind.name),
            None => default_of(definition)
                .map(|value| own_place(definition, &value, ConfigSource::Default))
                .into_iter()
                .collect(),
        };
        let places: Vec<Synonym> = own.into_iter().chain(behind).collect();
        let first = places.first().and_then(|first| first.value.as_ref());
        let value = first.map(|value| Str::from(definition.shown_value(value)));
        Setting::of(definition, definition.name, value, places)
    };
    let all = configs::all(Scope::Group);
    all.filter(|definition| wanted.has(definition.name))
        .map(setting)
        .collect()
}

impl Setting {
    fn of(
        definition: &'static ConfigDef,
        name: &str,
        value: Option<Str>,
        synonyms: Vec<Synonym>,
    ) -> Self {
        let first = synonyms.first().map(|first| first.source);
        Self {
            definition,
            name: Str::from(name),
            value,
            source: first.unwrap_or(ConfigSource::Default as i8),
            read_only: false,
            is_sensitive: definition.kind == ConfigType::Password,
            synonyms,
        }
    }

    /// Passwords are never told.
    fn hide_password(&mut self) {
        if self.is_sensitive {
            self.value = None;
            self.synonyms
                .iter_mut()
                .for_each(|synonym| synonym.value = None);
        }
    }
}

/// A value of the resource itself, as it is shown.
fn own_place(definition: &ConfigDef, value: &str, source: ConfigSource) -> Synonym {
    Synonym {
        name: Str::from(definition.name),
        value: Some(Str::from(definition.shown_value(value))),
        source: source as i8,
    }
}

fn default_of(definition: &ConfigDef) -> Option<Str> {
    definition.default.map(Str::from_static)
}
