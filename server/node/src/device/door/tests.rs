//! Who is let in, and what is counted for an address.

use super::*;

fn at(address: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, address], 1))
}

fn enter(door: &Arc<Door>, over: Over, address: u8) -> Option<Place> {
    match door.admit(over, at(address), true) {
        Admission::In(place) => Some(place),
        _ => None,
    }
}

fn gone(place: &Place) -> bool {
    !place.door.state().connections.contains_key(&place.id)
}

#[test]
fn the_oldest_idle_one_makes_place() {
    let door = Door::new(Limits { connections: 3, ..Limits::default() }, 2);
    let places: Vec<Place> = (0..3).map(|n| enter(&door, Over::Quic, n).unwrap()).collect();
    let busy = places[0].busy();
    // It has asked for something since.
    drop(places[1].busy());
    let new = enter(&door, Over::Quic, 9).unwrap();
    assert_eq!([0, 1, 2].map(|n| gone(&places[n])), [false, false, true]);
    let other = enter(&door, Over::Quic, 8).unwrap();
    assert!(gone(&places[1]) && !gone(&new));
    let (_a, _b) = (new.busy(), other.busy());
    assert!(enter(&door, Over::Quic, 7).is_none(), "all are busy");
    let _tcp = (enter(&door, Over::Tcp, 7).unwrap(), enter(&door, Over::Tcp, 7).unwrap());
    drop(busy);
    assert!(enter(&door, Over::Quic, 7).is_some() && gone(&places[0]));
    drop((_a, _b, _tcp));
    drop((places, new, other));
    let state = door.state();
    assert_eq!((state.connections.len(), state.quic), (0, 0));
    assert!(state.sources.values().all(|u| u.connections + u.requests + u.sessions == 0));
}

#[test]
fn an_address_keeps_to_its_limits() {
    let limits = Limits {
        address_connections: 2,
        address_handshakes: 6,
        address_sessions: 1,
        address_requests: 1,
        address_requests_hour: 3,
        ..Limits::default()
    };
    let door = Door::new(limits, 9);
    let first = enter(&door, Over::Quic, 1).unwrap();
    let second = enter(&door, Over::Tcp, 1).unwrap();
    let third = enter(&door, Over::Tcp, 1).unwrap();
    assert!(gone(&first) && !gone(&second) && !gone(&third), "over both transports");
    let vanished = super::super::idle(Limits::default().infer());
    let opening = third.session(true).ok().unwrap();
    assert_eq!(second.session(true).err(), Some(vanished), "one at a time");
    drop(opening);
    third.sessions(1);
    assert_eq!(second.session(true).err(), Some(vanished));
    third.sessions(0);
    let one = third.request().ok().unwrap();
    assert_eq!(second.request().err(), Some(None), "one at a time");
    drop(one);
    drop((second.request(), second.request()));
    drop(third.request().ok());
    let pause = second.request().err().unwrap().unwrap();
    assert!(pause > Duration::from_secs(1190) && pause <= Duration::from_secs(1200), "{pause:?}");
    assert!(second.session(true).is_ok() && second.session(false).is_ok());
    assert!(second.session(true).is_ok());
    let pause = second.session(true).err().unwrap();
    assert!(pause > Duration::from_secs(9) && pause <= Duration::from_secs(10), "{pause:?}");
    assert!(enter(&door, Over::Quic, 1).is_none(), "and handshakes");
    assert!(enter(&door, Over::Quic, 2).is_some(), "another address");
}

/// However many connections it has; and those requests that find their bundle leased are counted once, as any.
#[test]
fn an_address_holds_few_leases_at_a_time() {
    let limits = Limits { address_leases: 3, address_requests_hour: 2, ..Limits::default() };
    let door = Door::new(limits, 9);
    let places: Vec<Place> = (0..4).map(|_| enter(&door, Over::Quic, 1).unwrap()).collect();
    let mut held: Vec<Leased> = places.iter().filter_map(Place::lease).collect();
    assert_eq!(held.len(), 3);
    assert!(enter(&door, Over::Tcp, 2).unwrap().lease().is_some(), "another address");
    drop(held.pop());
    let more = places[0].lease();
    assert!(more.is_some() && places[0].lease().is_none());
    assert_eq!((0..3).filter(|_| places[0].request().is_ok()).count(), 2);
    // A connection that ends does not take it along.
    drop(places);
    assert!(enter(&door, Over::Quic, 1).unwrap().lease().is_none());
    drop((held, more));
    assert!(door.state().sources.values().all(|usage| usage.leased == 0));
}

/// Whoever sends from others' addresses takes little from them, and no connection.
#[test]
fn who_does_not_show_its_address_gets_little() {
    let door = Door::new(Limits { connections: 100, address_connections: 8, ..Limits::default() }, 9);
    let mut places = Vec::new();
    let mut enter = |address| match door.admit(Over::Quic, at(address), false) {
        Admission::In(place) => {
            places.push(place);
            true
        }
        Admission::Validate => false,
        Admission::Out(_) => panic!(),
    };
    assert_eq!((0..4).filter(|_| enter(1)).count(), 2);
    assert_eq!((2..90).filter(|n| enter(*n)).count(), 23);
}

#[test]
fn addresses_are_forgotten() {
    let door = Door::new(Limits { address_handshakes: 0, ..Limits::default() }, 9);
    for n in 0..5000_u32 {
        drop(door.admit(Over::Tcp, SocketAddr::from((n.to_be_bytes(), 1)), true));
    }
    assert!(door.state().sources.len() <= MIN_SWEEP);
}
