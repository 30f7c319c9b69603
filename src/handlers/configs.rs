//! The settings of a resource as DescribeConfigs and CreateTopics tell them: value, where it comes
//! from, and every place that could have given it. Pure; reads the image.

use std::collections::BTreeMap;

use chronik_protocol::Str;
use chronik_protocol::configs::{self, ConfigDef, ConfigType, Scope};
use chronik_shards::catalog::{
    ConfigSource, ConfigSynonym, Image, Topic, broker_synonyms, group_synonyms,
    is_dynamic_broker_config,
};

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

/// All settings of a topic.
pub(super) fn of_topic(image: &Image, topic: &Topic) -> Vec<Setting> {
    configs::all(Scope::Topic)
        .map(|definition| {
            let given = image.topic_synonyms(topic, definition.name);
            let value = given
                .iter()
                .find_map(converted)
                .or_else(|| default_of(definition));
            let source = given
                .first()
                .map_or(ConfigSource::Default, |first| first.source) as i8;
            let mut synonyms: Vec<Synonym> = given.iter().map(Synonym::of).collect();
            // A topic's default is told by the strongest broker setting behind it.
            let behind = broker_synonyms(definition.name).first();
            let known = behind.and_then(|(name, _)| configs::broker(name));
            synonyms.extend(known.and_then(default_synonym));
            Setting {
                definition,
                value,
                source,
                read_only: false,
                is_sensitive: false,
                synonyms,
            }
        })
        .collect()
}

/// All settings of this broker.
pub(super) fn of_broker(image: &Image) -> Vec<Setting> {
    let layers = &image.broker_configs;
    let sources: [(&BTreeMap<Str, Str>, ConfigSource); 3] = [
        (
            layers.dynamic_broker(image.node_id),
            ConfigSource::DynamicBroker,
        ),
        (&layers.dynamic_default, ConfigSource::DynamicDefaultBroker),
        (&layers.static_broker, ConfigSource::StaticBroker),
    ];
    configs::all(Scope::Broker)
        .map(|definition| {
            let name = definition.name;
            let places = sources.iter().filter_map(|(layer, source)| {
                let value = layer.get(name)?.clone();
                Some(Synonym {
                    name: Str::from_static(name),
                    value: Some(value),
                    source: *source as i8,
                })
            });
            let synonyms: Vec<Synonym> = places.chain(default_synonym(definition)).collect();
            let first = synonyms.first();
            let is_sensitive = definition.kind == ConfigType::Password;
            let mut setting = Setting {
                definition,
                value: first.and_then(|first| first.value.clone()),
                source: first.map_or(ConfigSource::Default as i8, |first| first.source),
                read_only: !is_dynamic_broker_config(name),
                is_sensitive,
                synonyms,
            };
            if is_sensitive {
                setting.hide();
            }
            setting
        })
        .collect()
}

/// The settings made at run time for all brokers.
pub(super) fn of_all_brokers(image: &Image) -> Vec<Setting> {
    let made = image.broker_configs.dynamic_default.iter();
    made.filter_map(|(name, value)| {
        let definition = configs::broker(name)?;
        let source = ConfigSource::DynamicDefaultBroker as i8;
        let synonym = Synonym {
            name: name.clone(),
            value: Some(value.clone()),
            source,
        };
        let mut setting = Setting {
            definition,
            value: Some(value.clone()),
            source,
            read_only: !is_dynamic_broker_config(name),
            is_sensitive: definition.kind == ConfigType::Password,
            synonyms: vec![synonym],
        };
        if setting.is_sensitive {
            setting.hide();
        }
        Some(setting)
    })
    .collect()
}

/// All settings of a group; it need not exist.
pub(super) fn of_group(image: &Image, group: &str) -> Vec<Setting> {
    let own = image.other_configs(RESOURCE_GROUP, group);
    let all = configs::all(Scope::Group);
    all.map(|definition| {
        let places = group_synonyms(own, &image.broker_configs.static_broker, definition);
        let first = places.first();
        Setting {
            definition,
            value: first.and_then(|first| first.value.clone()),
            source: first.map_or(ConfigSource::Default, |first| first.source) as i8,
            read_only: false,
            is_sensitive: false,
            synonyms: places.iter().map(Synonym::of).collect(),
        }
    })
    .collect()
}

impl Setting {
    /// Passwords are never told.
    fn hide(&mut self) {
        self.value = None;
        self.synonyms
            .iter_mut()
            .for_each(|synonym| synonym.value = None);
    }
}

impl Synonym {
    fn of(given: &ConfigSynonym) -> Self {
        Self {
            name: given.name.clone(),
            value: given.value.clone(),
            source: given.source as i8,
        }
    }
}

fn converted(given: &ConfigSynonym) -> Option<Str> {
    given
        .value
        .as_ref()
        .and_then(|value| given.conversion.apply(value))
}

fn default_of(definition: &ConfigDef) -> Option<Str> {
    definition.default.map(Str::from_static)
}

/// A default as a place; a default of null is none.
fn default_synonym(definition: &'static ConfigDef) -> Option<Synonym> {
    let value = default_of(definition)?;
    let source = ConfigSource::Default as i8;
    Some(Synonym {
        name: Str::from_static(definition.name),
        value: Some(value),
        source,
    })
}
