//! PERSISTENT RESERVE IN (SPC-4 section 6.15).

use super::{Registrant, Reservations};
use crate::scsi::Sense;
use crate::wire;

/// The answer to a service action, not cut yet.
pub fn read(reservations: &Reservations, service_action: u8) -> Result<Vec<u8>, Sense> {
    let body = match service_action {
        0 => reservations.registrants.iter().flat_map(|registrant| registrant.key.to_be_bytes()).collect(),
        1 => reservation(reservations),
        2 => return Ok(capabilities()),
        3 => reservations.registrants.iter().flat_map(|one| full_status(reservations, one)).collect(),
        _ => return Err(Sense::invalid_field(1)),
    };
    let mut data = reservations.generation.to_be_bytes().to_vec();
    data.extend_from_slice(&wire::length(body.len()).to_be_bytes());
    data.extend_from_slice(&body);
    Ok(data)
}

/// READ RESERVATION: the holder's key; 0 when all registrants hold it.
fn reservation(reservations: &Reservations) -> Vec<u8> {
    let Some(held) = &reservations.held else { return Vec::new() };
    let holder = held.holder.as_ref().and_then(|holder| reservations.registrant(holder));
    let mut data = holder.map_or(0, |holder| holder.key).to_be_bytes().to_vec();
    data.extend_from_slice(&[0, 0, 0, 0, 0, held.kind as u8, 0, 0]);
    data
}

/// REPORT CAPABILITIES: the types there are (TMV; WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR), nothing else.
fn capabilities() -> Vec<u8> {
    vec![0, 8, 0, 0x80, 0xea, 0x01, 0, 0]
}

/// READ FULL STATUS: one registrant, with its iSCSI TransportID (SPC-4 section 7.6.4.6).
fn full_status(reservations: &Reservations, registrant: &Registrant) -> Vec<u8> {
    let held = reservations.held.as_ref().filter(|_| reservations.holds(&registrant.who));
    let mut name = format!("{},i,0x{:?}", registrant.who.initiator, registrant.who.isid).into_bytes();
    name.resize((name.len() + 4) & !3, 0);
    let mut data = registrant.key.to_be_bytes().to_vec();
    data.extend_from_slice(&[0; 4]);
    data.extend_from_slice(&[u8::from(held.is_some()), held.map_or(0, |held| held.kind as u8)]);
    data.extend_from_slice(&[0; 4]);
    // The one target port.
    data.extend_from_slice(&1_u16.to_be_bytes());
    data.extend_from_slice(&wire::length(name.len() + 4).to_be_bytes());
    // Format 01b: with the ISID; protocol 5.
    data.extend_from_slice(&[0x45, 0]);
    data.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    data.extend_from_slice(&name);
    data
}
