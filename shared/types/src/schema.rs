//! How these types look in an OpenAPI document: what a client must send so that it parses.
//!
//! Deliberately absent: rules that a pattern cannot say (a name is not a UUID, a range has its first address first).

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, Object, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    AgentId, Architecture, AuthorityId, ByteSize, DhcpMode, ImageFormat, ImageId, InstanceId, Ipv4Range, Iqn,
    JoinTokenId, MacAddr, Name, NetworkId, NetworkPlan, NodeId, OperationId, ProjectId, Segment,
    ServiceAccountId, ServiceTokenId, Timestamp, VolumeId,
};

/// Six pairs with colons or hyphens, three groups of four with dots, or twelve digits.
const MAC_PATTERN: &str = "^([0-9A-Fa-f][02468ACEace]((:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5}|\
                           [0-9A-Fa-f]{2}\\.[0-9A-Fa-f]{4}\\.[0-9A-Fa-f]{4}|[0-9A-Fa-f]{10}))$";

/// One octet of an IPv4 address.
macro_rules! octet {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}
/// An IPv4 address.
macro_rules! address {
    () => {
        concat!(octet!(), "\\.", octet!(), "\\.", octet!(), "\\.", octet!())
    };
}

/// Stands for an IPv4 address in a field of the standard library's type.
#[derive(Debug)]
pub struct Ipv4Address;

/// Stands for an IPv4 network in a field of [`crate::Ipv4Net`].
#[derive(Debug)]
pub struct Ipv4Network;

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn word(description: &str, words: &[&str]) -> Object {
    text(description).enum_values(Some(words.iter().copied())).build()
}

macro_rules! described {
    ($($name:ident => $object:expr),+ $(,)?) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                Schema::from($object).into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )+};
}

macro_rules! ids {
    ($($name:ident: $what:literal),+ $(,)?) => {
        described! {$(
            $name => text(concat!("The id of ", $what, ".")).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))).build()
        ),+}
    };
}

ids! {
    AgentId: "an agent",
    AuthorityId: "an authority",
    ImageId: "an image",
    InstanceId: "an instance",
    JoinTokenId: "a join token",
    NetworkId: "a network",
    NodeId: "a node",
    OperationId: "an operation",
    ProjectId: "a project",
    ServiceAccountId: "a service account",
    ServiceTokenId: "a token of a service account",
    VolumeId: "a volume",
}

described! {
    Name => text("A lower-case DNS label (RFC 1035 section 2.3.4) that is not a UUID.")
        .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
        .min_length(Some(1))
        .max_length(Some(63))
        .build(),
    MacAddr => text("A unicast Ethernet address; answered as six lower-case pairs with colons.")
        .pattern(Some(MAC_PATTERN))
        .build(),
    Iqn => text("An iSCSI name (RFC 7143 section 4.2.7), lower case.")
        .pattern(Some("^(iqn|eui|naa)\\.[a-z0-9.:-]+$"))
        .max_length(Some(223))
        .build(),
    ByteSize => ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some("A number of bytes."))
        .minimum(Some(0))
        .build(),
    Timestamp => text("A time in UTC (RFC 3339), to the microsecond.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .build(),
    Ipv4Address => text("An IPv4 address.").pattern(Some(concat!("^", address!(), "$"))).build(),
    Ipv4Network => text("An IPv4 network such as `10.0.0.0/24`: no host bits, /16 to /27, private (RFC 1918).")
        .pattern(Some(concat!("^", address!(), "/(1[6-9]|2[0-7])$")))
        .build(),
    Ipv4Range => text("Two IPv4 addresses, `first-last`, both included; the first is not above the last.")
        .pattern(Some(concat!("^", address!(), "-", address!(), "$")))
        .build(),
    DhcpMode => word(
        "BMI's part in DHCP: `authoritative` gives addresses and boot information, `proxy` adds boot information to \
         another server's addresses, `off` answers nothing.",
        &["authoritative", "proxy", "off"],
    ),
    ImageFormat => word("How a file holds a disk. It is declared, never found out.", &["raw", "qcow2"]),
    Architecture => word("A processor architecture.", &["x86_64", "aarch64"]),
}

/// One way of keeping a network apart.
fn segment(kind: &str, ids: Option<(u32, u32)>) -> Object {
    let object = ObjectBuilder::new()
        .property("kind", word("How.", &[kind]))
        .required("kind")
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    let Some((first, last)) = ids else { return object.build() };
    let id = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(first)).maximum(Some(last)).build();
    object.property("id", id).required("id").build()
}

impl PartialSchema for Segment {
    fn schema() -> RefOr<Schema> {
        let ways = OneOfBuilder::new()
            .description(Some("What keeps a network apart from others on the same wires."))
            .item(segment("none", None))
            .item(segment("vlan", Some((1, 4094))))
            .item(segment("vxlan", Some((1, 16_777_215))));
        Schema::from(ways.build()).into()
    }
}

impl ToSchema for Segment {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Segment")
    }
}

impl PartialSchema for NetworkPlan {
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new()
            .description(Some("Where everything on a network lives; nothing overlaps."))
            .property("cidr", Ipv4Network::schema())
            .property("netboot_address", Ipv4Address::schema())
            .property("target_range", Ipv4Range::schema())
            .property("node_range", Ipv4Range::schema())
            .property("discovery_range", Ipv4Range::schema());
        let fields = ["cidr", "netboot_address", "target_range", "node_range", "discovery_range"];
        Schema::from(fields.into_iter().fold(object, ObjectBuilder::required).build()).into()
    }
}

impl ToSchema for NetworkPlan {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("NetworkPlan")
    }
}
