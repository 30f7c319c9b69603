//! Writes the tables: API keys, error codes, the record enumerations and the list of messages that tests visit.

use crate::names::{api_name, camel};
use crate::schema::{Family, Message, Versions};

/// The API key or record type; every message handled here has one.
fn number_of(message: &Message) -> i16 {
    let number = message.number;
    number.unwrap_or_else(|| panic!("{} has no number", message.name))
}

/// Writes `ApiKey` and the `Request` implementations.
pub(crate) fn api_keys(out: &mut String, messages: &[Message]) {
    let mut keys: Vec<&Message> = messages
        .iter()
        .filter(|m| matches!(m.family, Family::Request | Family::Retired))
        .collect();
    keys.sort_by_key(|m| m.number);
    out.push_str("/// Every API of Kafka 3.9 and 4.3, by its number on the wire.\n");
    out.push_str("#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n");
    out.push_str("#[repr(i16)]\npub enum ApiKey {\n");
    for key in &keys {
        let (name, number) = (api_name(&key.name), number_of(key));
        match key.family {
            Family::Retired => line!(out, "/// `{name}`, gone in Kafka 4.0: no body."),
            _ => line!(out, "/// `{name}`: schema versions {}.", key.versions),
        }
        line!(out, "{name} = {number},");
    }
    out.push_str("}\nimpl ApiKey {\n/// Every key, ascending.\n");
    line!(out, "pub const ALL: [ApiKey; {}] = [", keys.len());
    for key in &keys {
        line!(out, "ApiKey::{},", api_name(&key.name));
    }
    out.push_str("];\n");
    key_facts(out, &keys);
    out.push_str("}\nimpl TryFrom<i16> for ApiKey { type Error = UnknownApiKey;\n");
    out.push_str("fn try_from(key: i16) -> Result<Self, UnknownApiKey> { Ok(match key {\n");
    for key in &keys {
        line!(
            out,
            "{} => ApiKey::{},",
            number_of(key),
            api_name(&key.name)
        );
    }
    out.push_str("_ => return Err(UnknownApiKey(key)), }) } }\n");
    requests(out, messages);
}

fn requests(out: &mut String, messages: &[Message]) {
    for request in messages.iter().filter(|m| m.family == Family::Request) {
        let api = api_name(&request.name);
        let response = messages
            .iter()
            .find(|m| m.family == Family::Response && m.number == request.number)
            .unwrap_or_else(|| panic!("{} has no response", request.name));
        assert_eq!(
            request.versions, response.versions,
            "{api}: request and response differ"
        );
        line!(
            out,
            "impl Request for messages::{} {{ const KEY: ApiKey = ApiKey::{api}; \
             type Response = messages::{}; }}",
            request.name,
            response.name
        );
    }
}

fn key_facts(out: &mut String, keys: &[&Message]) {
    out.push_str("/// Kafka's name, for example `Produce`.\n");
    out.push_str("pub const fn name(self) -> &'static str { match self {\n");
    for key in keys {
        let name = api_name(&key.name);
        line!(out, "ApiKey::{name} => {name:?},");
    }
    out.push_str("} }\n/// The versions the codec has; `None` for keys whose bodies are gone.\n");
    out.push_str("/// What the broker serves is in [`crate::versions`].\n");
    out.push_str(
        "pub const fn schema_versions(self) -> Option<RangeInclusive<i16>> { match self {\n",
    );
    for key in keys.iter().filter(|k| k.family == Family::Request) {
        let Versions { first, last } = key.versions;
        line!(
            out,
            "ApiKey::{} => Some({first}..={last}),",
            api_name(&key.name)
        );
    }
    out.push_str("_ => None, } }\n/// A version in the schema that Kafka has not promised yet.\n");
    out.push_str("pub const fn unstable_version(self) -> Option<i16> { match self {\n");
    for key in keys {
        if let Some(version) = key.unstable {
            line!(out, "ApiKey::{} => Some({version}),", api_name(&key.name));
        }
    }
    out.push_str("_ => None, } }\n");
    out.push_str("/// First version whose header and body are flexible (KIP-482).\n");
    out.push_str("pub const fn flexible_from(self) -> Option<i16> { match self {\n");
    for key in keys {
        if let Some(from) = key.flexible_from {
            line!(out, "ApiKey::{} => Some({from}),", api_name(&key.name));
        }
    }
    out.push_str("_ => None, } }\n");
    out.push_str("/// True when a broker listener of Kafka 4.3 answers it.\n");
    out.push_str("pub const fn on_broker_listener(self) -> bool { matches!(self, ");
    let names: Vec<String> = keys
        .iter()
        .filter(|k| k.listeners.iter().any(|l| l == "broker"))
        .map(|k| format!("ApiKey::{}", api_name(&k.name)))
        .collect();
    line!(out, "{}) }}", names.join(" | "));
}

/// Writes `ErrorCode` from lines of `code,NAME,retriable`.
pub(crate) fn error_codes(out: &mut String, csv: &str) {
    let rows: Vec<(i16, &str, bool)> = csv
        .lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split(',');
            let code = cells.next().and_then(|c| c.parse().ok()).expect(line);
            let name = cells.next().expect(line);
            (code, name, cells.next().expect(line) == "true")
        })
        .collect();
    out.push_str("/// What a response says went wrong, by its number on the wire.\n");
    out.push_str("#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]\n");
    out.push_str("#[repr(i16)]\npub enum ErrorCode {\n");
    for (code, name, retriable) in &rows {
        let retriable = if *retriable { ", retriable" } else { "" };
        let default = if *code == 0 { "#[default]\n" } else { "" };
        line!(
            out,
            "/// `{name}`{retriable}.\n{default}{} = {code},",
            camel(name)
        );
    }
    out.push_str("}\nimpl ErrorCode {\n/// Every code, ascending.\n");
    line!(out, "pub const ALL: [ErrorCode; {}] = [", rows.len());
    for (_, name, _) in &rows {
        line!(out, "ErrorCode::{},", camel(name));
    }
    out.push_str("];\n/// Kafka's name of the constant, for example `NOT_LEADER_OR_FOLLOWER`.\n");
    out.push_str("pub const fn name(self) -> &'static str { match self {\n");
    for (_, name, _) in &rows {
        line!(out, "ErrorCode::{} => {name:?},", camel(name));
    }
    out.push_str("} }\n/// True when a client may send the same request again.\n");
    out.push_str("pub const fn is_retriable(self) -> bool { matches!(self, ");
    let names: Vec<String> = rows
        .iter()
        .filter(|r| r.2)
        .map(|r| format!("ErrorCode::{}", camel(r.1)))
        .collect();
    line!(out, "{}) }} }}", names.join(" | "));
    out.push_str("impl TryFrom<i16> for ErrorCode { type Error = UnknownErrorCode;\n");
    out.push_str("fn try_from(code: i16) -> Result<Self, UnknownErrorCode> { Ok(match code {\n");
    for (code, name, _) in &rows {
        line!(out, "{code} => ErrorCode::{},", camel(name));
    }
    out.push_str("_ => return Err(UnknownErrorCode(code)), }) } }\n");
}

/// Writes one enumeration for the records of each log.
pub(crate) fn record_sets(out: &mut String, messages: &[Message]) {
    let sets: [(&str, &str, Family, &str, &str); 7] = [
        (
            "MetadataRecord",
            "",
            Family::MetadataRecord,
            "Record",
            "A record of the metadata log",
        ),
        (
            "GroupKey",
            "__consumer_offsets",
            Family::RecordKey,
            "Key",
            "A key",
        ),
        (
            "GroupValue",
            "__consumer_offsets",
            Family::RecordValue,
            "Value",
            "A value",
        ),
        (
            "TransactionKey",
            "__transaction_state",
            Family::RecordKey,
            "Key",
            "A key",
        ),
        (
            "TransactionValue",
            "__transaction_state",
            Family::RecordValue,
            "Value",
            "A value",
        ),
        (
            "ShareGroupKey",
            "__share_group_state",
            Family::RecordKey,
            "Key",
            "A key",
        ),
        (
            "ShareGroupValue",
            "__share_group_state",
            Family::RecordValue,
            "Value",
            "A value",
        ),
    ];
    for (name, log, family, suffix, what) in sets {
        let place = if log.is_empty() {
            String::new()
        } else {
            format!(" in `{log}`")
        };
        let of_set =
            |m: &&Message| m.family == family && m.log.as_deref().unwrap_or_default() == log;
        let records: Vec<&Message> = messages.iter().filter(of_set).collect();
        let heading = format!("{what}{place}");
        record_set(out, name, suffix, &heading, &records);
    }
}

fn record_set(out: &mut String, name: &str, suffix: &str, heading: &str, records: &[&Message]) {
    let variant = |m: &Message| m.name.strip_suffix(suffix).expect(&m.name).to_owned();
    line!(
        out,
        "/// {heading}.\n#[derive(Clone, Debug, PartialEq)]\npub enum {name} {{"
    );
    for m in records {
        let number = number_of(m);
        line!(out, "/// Record type {number}, versions {}.", m.versions);
        line!(out, "{}(messages::{}),", variant(m), m.name);
    }
    line!(out, "}}\nimpl RecordSet for {name} {{");
    line!(out, "const NAME: &'static str = {name:?};");
    out.push_str("fn record_type(&self) -> i16 { match self {\n");
    for m in records {
        line!(out, "Self::{}(_) => {},", variant(m), number_of(m));
    }
    out.push_str("} }\nfn versions(record_type: i16) -> Option<RangeInclusive<i16>> {\n");
    out.push_str("match record_type {\n");
    for m in records {
        let Versions { first, last } = m.versions;
        line!(out, "{} => Some({first}..={last}),", number_of(m));
    }
    out.push_str("_ => None, } }\nfn decode_body(r: &mut Reader, record_type: i16, version: i16) ");
    out.push_str("-> Result<Self, DecodeError> { Ok(match record_type {\n");
    for m in records {
        let read = format!("messages::{}::decode(r, version)?", m.name);
        line!(out, "{} => Self::{}({read}),", number_of(m), variant(m));
    }
    out.push_str(
        "_ => return Err(DecodeError::UnknownRecordType { set: Self::NAME, record_type }),",
    );
    out.push_str(" }) }\nfn encode_body(&self, w: &mut Writer, version: i16) ");
    out.push_str("-> Result<(), EncodeError> { match self {\n");
    for m in records {
        line!(
            out,
            "Self::{}(body) => body.encode(w, version),",
            variant(m)
        );
    }
    out.push_str("} } }\n");
    for m in records {
        let (body, variant) = (format!("messages::{}", m.name), variant(m));
        line!(out, "impl From<{body}> for {name} {{");
        line!(
            out,
            "fn from(body: {body}) -> Self {{ Self::{variant}(body) }} }}"
        );
    }
}

/// Writes the macro through which tests visit every message.
pub(crate) fn visitor(out: &mut String, messages: &[Message]) {
    out.push_str("/// Calls the macro it is given with the name of every message.\n");
    out.push_str("#[doc(hidden)]\n#[macro_export]\nmacro_rules! for_each_message {\n");
    out.push_str("($visit:ident) => { $visit! {\n");
    for message in messages.iter().filter(|m| m.family != Family::Retired) {
        line!(out, "{}", message.name);
    }
    out.push_str("} } }\n");
}
