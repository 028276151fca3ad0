//! REPORT SUPPORTED OPERATION CODES (SPC-4 section 6.35), from the one table of what `decode` knows.

use super::{Action, Sense, reply};
use crate::wire;

/// A command: operation code, service action if it has one, and which CDB bits mean something.
struct Command {
    operation: u8,
    service_action: Option<u8>,
    usage: &'static [u8],
}

const fn plain(usage: &'static [u8]) -> Command {
    let operation = match usage.first() {
        Some(first) => *first,
        None => 0,
    };
    Command { operation, service_action: None, usage }
}

const fn serviced(service_action: u8, usage: &'static [u8]) -> Command {
    Command { service_action: Some(service_action), ..plain(usage) }
}

const COMMANDS: &[Command] = &[
    plain(&[0x00, 0, 0, 0, 0, 0x04]),
    plain(&[0x03, 0x01, 0, 0, 0xff, 0x04]),
    plain(&[0x08, 0x1f, 0xff, 0xff, 0xff, 0x04]),
    plain(&[0x0a, 0x1f, 0xff, 0xff, 0xff, 0x04]),
    plain(&[0x12, 0x01, 0xff, 0xff, 0xff, 0x04]),
    plain(&[0x1a, 0x08, 0xff, 0xff, 0xff, 0x04]),
    plain(&[0x1b, 0x01, 0, 0x0f, 0xf7, 0x04]),
    plain(&[0x1e, 0, 0, 0, 0x03, 0x04]),
    plain(&[0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0x04]),
    plain(&[0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x2a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x2f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x35, 0x02, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x41, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x42, 0x01, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0x04]),
    plain(&[0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04]),
    plain(&[0x88, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0x8a, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0x8f, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0x91, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0x93, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    serviced(0x10, &[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04]),
    serviced(
        0x12,
        &[0x9e, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04],
    ),
    plain(&[0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04]),
    serviced(0x0c, &[0xa3, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04]),
    plain(&[0xa8, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0xaa, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
    plain(&[0xaf, 0xf6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x04]),
];

/// A timeouts descriptor that states none.
const TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub fn decode(cdb: &[u8; 16]) -> Result<Action, Sense> {
    let options = wire::u8_at(cdb, 2);
    let timeouts = options & 0x80 != 0;
    let operation = wire::u8_at(cdb, 3);
    let service_action = wire::u16_at(cdb, 4);
    let data = match options & 0x07 {
        0 => all(timeouts),
        1 | 2 => {
            let mut of_operation =
                COMMANDS.iter().filter(|command| command.operation == operation).peekable();
            let serviced = of_operation.peek().is_some_and(|command| command.service_action.is_some());
            // 1: the operation must not have service actions; 2: it must (SPC-4 table 262).
            if of_operation.peek().is_some() && serviced != (options & 0x07 == 2) {
                return Err(Sense::INVALID_FIELD_IN_CDB);
            }
            one(of_operation.find(|command| !serviced || matches(command, service_action)), timeouts)
        }
        3 => {
            let found = COMMANDS
                .iter()
                .find(|command| command.operation == operation && matches(command, service_action));
            one(found, timeouts)
        }
        _ => return Err(Sense::INVALID_FIELD_IN_CDB),
    };
    Ok(reply(data, wire::u32_at(cdb, 6)))
}

fn matches(command: &Command, service_action: u16) -> bool {
    command.service_action.map_or(0, u16::from) == service_action
}

fn all(timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for command in COMMANDS {
        let flags = u8::from(timeouts) << 1 | u8::from(command.service_action.is_some());
        data.extend_from_slice(&[command.operation, 0, 0, command.service_action.unwrap_or(0), 0, flags]);
        data.extend_from_slice(&u16::try_from(command.usage.len()).unwrap_or(0).to_be_bytes());
        if timeouts {
            data.extend_from_slice(&TIMEOUTS);
        }
    }
    let length = wire::length(data.len() - 4);
    wire::put(&mut data, 0, &length.to_be_bytes());
    data
}

/// SUPPORT 011b with the usage map, or 001b: not supported.
fn one(command: Option<&Command>, timeouts: bool) -> Vec<u8> {
    let Some(command) = command else { return vec![0, 0x01, 0, 0] };
    let flags = u8::from(timeouts) << 7 | 0x03;
    let mut data = vec![0, flags];
    data.extend_from_slice(&u16::try_from(command.usage.len()).unwrap_or(0).to_be_bytes());
    data.extend_from_slice(command.usage);
    if let (Some(service_action), Some(byte)) = (command.service_action, data.get_mut(5)) {
        *byte = service_action;
    }
    if timeouts {
        data.extend_from_slice(&TIMEOUTS);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TargetConfig;
    use crate::scsi::{Unit, UnitKind, decode};

    #[test]
    fn the_table_lists_exactly_what_is_decoded() {
        let unit = Unit {
            number: 0,
            kind: UnitKind::Disk,
            block_size: 512,
            blocks: 1000,
            read_only: false,
            write_cache: true,
        };
        let config = TargetConfig {
            name: "iqn.2026-01.example:t".into(),
            initiators: vec![],
            chap: false,
            units: vec![unit],
        };
        for operation in 0..=u8::MAX {
            for service_action in 0..32 {
                let mut cdb = [0; 16];
                cdb[0] = operation;
                cdb[1] = service_action;
                let known = decode(&config, Some(0), &cdb) != Err(Sense::INVALID_OPERATION_CODE);
                let listed = COMMANDS.iter().any(|command| {
                    command.operation == operation
                        && command.service_action.is_none_or(|listed| listed == service_action)
                });
                assert_eq!(known, listed, "{operation:02x}/{service_action:02x}");
            }
        }
    }

    #[test]
    fn usage_maps_are_as_long_as_their_commands() {
        for command in COMMANDS {
            let length = match command.operation >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!((command.usage.len(), command.usage[0]), (length, command.operation));
        }
    }
}
