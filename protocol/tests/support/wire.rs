//! Random wire bytes of any message, made by walking its schema.
//!
//! Independent of the generated encoders, and canonical: the bytes a correct encoder writes for their value, so
//! that `encode(decode(bytes)) == bytes` must hold.

use fastrand::Rng;

use super::schema::{Field, Message, Struct, Type};

/// Makes the bytes of one message.
pub(crate) struct Maker<'a> {
    message: &'a Message,
    version: i16,
    random: Rng,
    /// True to add tagged fields that no schema knows.
    pub(crate) unknown_tags: bool,
}

impl<'a> Maker<'a> {
    /// A maker for one version of `message`.
    pub(crate) fn new(message: &'a Message, version: i16, seed: u64) -> Maker<'a> {
        Maker {
            message,
            version,
            random: Rng::with_seed(seed),
            unknown_tags: true,
        }
    }

    /// The bytes of a message whose fields are random.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.structure(&self.message.structs[0], &mut out, 0);
        out
    }

    fn flexible(&self) -> bool {
        self.message.is_flexible(self.version)
    }

    fn structure(&mut self, structure: &'a Struct, out: &mut Vec<u8>, depth: u32) {
        let version = self.version;
        for field in structure
            .fields
            .iter()
            .filter(|field| field.in_place(version))
        {
            let compact = self.flexible() && !field.noncompact;
            self.field(field, compact, out, depth);
        }
        if self.flexible() {
            self.tags(structure, out, depth);
        }
    }

    fn tags(&mut self, structure: &'a Struct, out: &mut Vec<u8>, depth: u32) {
        let version = self.version;
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in structure
            .fields
            .iter()
            .filter(|field| field.tagged(version))
        {
            if self.random.u8(..2) == 0 {
                continue;
            }
            let mut value = Vec::new();
            self.tagged(field, &mut value, depth);
            tags.push((field.tag.expect("tagged").0, value));
        }
        if self.unknown_tags && self.random.u8(..8) == 0 {
            for tag in [63, 64, 5_000_000] {
                let length = self.random.usize(..200);
                tags.push((tag, vec![7; length]));
            }
        }
        tags.sort();
        uvarint(out, tags.len() as u64);
        for (tag, value) in tags {
            uvarint(out, u64::from(tag));
            uvarint(out, value.len() as u64);
            out.extend(value);
        }
    }

    /// The value of a tagged field, never its default, which encoders leave out.
    fn tagged(&mut self, field: &'a Field, out: &mut Vec<u8>, depth: u32) {
        let version = self.version;
        // A nullable field whose default is not null may be a null, which is written.
        let null_default = field.default.as_deref() == Some("null");
        if field.nullable.is_some() && !null_default && self.random.u8(..2) == 0 {
            out.push(0);
            return;
        }
        if let (Type::Struct(_), true) = (&field.ty, field.nullable.is_some()) {
            out.push(1);
        }
        match &field.ty {
            Type::Bool => out.push(u8::from(field.default.as_deref() != Some("true"))),
            Type::Int8 => out.push(99),
            Type::Int16 | Type::Uint16 => out.extend(9_999u16.to_be_bytes()),
            Type::Int32 | Type::Uint32 => out.extend(99_999u32.to_be_bytes()),
            Type::Int64 => out.extend(99_999_999_999u64.to_be_bytes()),
            Type::Float64 => out.extend(1.25f64.to_be_bytes()),
            Type::Uuid => out.extend([9; 16]),
            Type::Struct(name) => {
                // The first field gets a value that no schema has for a default.
                let structure = self.message.structure(name);
                let (first, rest) = structure.fields.split_first().expect("fields");
                assert!(first.in_place(version), "{name}: no such schema yet");
                self.tagged(first, out, depth + 1);
                for field in rest.iter().filter(|field| field.in_place(version)) {
                    self.field(field, true, out, depth + 1);
                }
                self.tags(structure, out, depth + 1);
            }
            ty => {
                let count = self.random.u64(1..=3);
                self.filled(ty, true, count, out, depth)
            }
        }
    }

    fn field(&mut self, field: &'a Field, compact: bool, out: &mut Vec<u8>, depth: u32) {
        let nullable = field.nullable_in(self.version);
        if nullable && self.random.u8(..4) == 0 {
            match (&field.ty, compact) {
                (Type::Struct(_), _) => out.push(0xff),
                (_, true) => out.push(0),
                (Type::String, false) => out.extend([0xff; 2]),
                (_, false) => out.extend([0xff; 4]),
            }
            return;
        }
        if nullable && matches!(field.ty, Type::Struct(_)) {
            out.push(1);
        }
        self.value(&field.ty, compact, out, depth);
    }

    fn value(&mut self, ty: &'a Type, compact: bool, out: &mut Vec<u8>, depth: u32) {
        let bits = self.random.u64(..);
        match ty {
            Type::Bool => out.push((bits & 1) as u8),
            Type::Int8 => out.push(bits as u8),
            Type::Int16 | Type::Uint16 => out.extend((bits as u16).to_be_bytes()),
            Type::Int32 | Type::Uint32 => out.extend((bits as u32).to_be_bytes()),
            Type::Int64 => out.extend(bits.to_be_bytes()),
            Type::Float64 => out.extend((bits as i32 as f64 / 8.0).to_be_bytes()),
            Type::Uuid => {
                out.extend(bits.to_be_bytes());
                out.extend(self.random.u64(..).to_be_bytes());
            }
            Type::Struct(name) => self.structure(self.message.structure(name), out, depth + 1),
            Type::Records => self.filled(
                ty,
                compact,
                [0, 1, 61, 5000][(bits % 4) as usize],
                out,
                depth,
            ),
            Type::Bytes | Type::String => {
                self.filled(ty, compact, [0, 1, 9, 300][(bits % 4) as usize], out, depth)
            }
            Type::Array(_) => {
                let most = if depth < 2 { 4 } else { 3 };
                self.filled(ty, compact, bits % most, out, depth);
            }
        }
    }

    /// A value with its length in front.
    fn filled(&mut self, ty: &'a Type, compact: bool, length: u64, out: &mut Vec<u8>, depth: u32) {
        match ty {
            Type::String => {
                // "ü" takes two bytes; one byte more makes an odd length.
                let mut text = "ü".repeat((length / 2) as usize);
                text.push_str(&"a".repeat((length % 2) as usize));
                prefix(out, compact, length, 2);
                out.extend(text.as_bytes());
            }
            Type::Bytes | Type::Records => {
                prefix(out, compact, length, 4);
                out.extend((0..length).map(|index| index as u8));
            }
            Type::Array(element) => {
                prefix(out, compact, length, 4);
                for _ in 0..length {
                    self.value(element, compact, out, depth);
                }
            }
            _ => panic!("{ty:?} has no length"),
        }
    }
}

/// A length in front of a value, as an unsigned varint plus one or in `width` bytes.
fn prefix(out: &mut Vec<u8>, compact: bool, length: u64, width: usize) {
    if compact {
        uvarint(out, length + 1);
    } else {
        out.extend(&length.to_be_bytes()[8 - width..]);
    }
}

/// An unsigned varint.
pub(crate) fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
