//! What the admin service does not take: each refusal has its code, and names the field that is wrong.

use crate::common::{client::Member, server::Server, until};
use chatroom::wire::admin::{
    AnnounceRequest, Ban, ConnectionFilter, ConnectionOrder, GetConnectionRequest, KickConnectionsRequest,
    ListBansRequest, ListConnectionsRequest, ListRoomsRequest, RemoveBanRequest, SetLogFilterRequest,
    WatchConnectionsRequest, admin_service_client::AdminServiceClient, remove_ban_request::Target,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

type Admin = AdminServiceClient<Channel>;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// A server with three in three rooms, whom nothing here may end.
async fn begins() -> (Server, Admin, Vec<Member>) {
    let server = Server::start(&[]);
    let mut members = Vec::new();
    for room in ["a", "b", "c"] {
        members.push(server.join_as(room, "someone").await);
    }
    let admin = AdminServiceClient::connect(format!("http://{}", server.admin_addr)).await.unwrap();
    (server, admin, members)
}

async fn all_are_still_there(members: Vec<Member>) {
    for mut member in members {
        member.publish("here").await;
        member.receives("here").await;
    }
}

/// `INVALID_ARGUMENT` with one violation, of this field.
#[track_caller]
fn is_invalid<T>(answer: Result<T, Status>, field: &str) {
    let Err(status) = answer else { panic!("{field} was taken") };
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, [field], "{status:?}");
    assert!(!violations[0].description.is_empty() && status.message().contains(field), "{status:?}");
}

fn of_id(id: &str) -> KickConnectionsRequest {
    KickConnectionsRequest { ids: vec![id.to_owned()], ..Default::default() }
}

fn in_room(room: &str) -> ConnectionFilter {
    ConnectionFilter { room: room.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn kick_without_target_is_invalid() {
    let (_server, mut admin, members) = begins().await;
    let all = KickConnectionsRequest { filter: Some(ConnectionFilter::default()), ..Default::default() };
    let of_room = KickConnectionsRequest { filter: Some(in_room("a")), ..Default::default() };
    let banning = |duration: Option<i64>, by_name| {
        let duration = duration.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let ban = Some(Ban { duration, by_address: false, by_name });
        KickConnectionsRequest { ban, ..of_room.clone() }
    };
    let filtered = |filter| KickConnectionsRequest { filter: Some(filter), ..Default::default() };
    let no_peer = ConnectionFilter { peer: "nowhere".to_owned(), ..Default::default() };
    let no_api = ConnectionFilter { api: 99, ..in_room("a") };
    for (request, field) in [
        (KickConnectionsRequest::default(), "ids"),
        (KickConnectionsRequest { dry_run: true, ..Default::default() }, "ids"),
        (of_id("not-an-id"), "ids"),
        (of_id(""), "ids"),
        (KickConnectionsRequest { ids: vec![NOBODY.to_owned(); 10_001], ..Default::default() }, "ids"),
        (all, "filter"),
        (KickConnectionsRequest { ids: vec![NOBODY.to_owned()], ..of_room.clone() }, "filter"),
        (KickConnectionsRequest { reason: "x".repeat(257), ..of_room.clone() }, "reason"),
        (KickConnectionsRequest { reason: "a\nb".to_owned(), ..of_room.clone() }, "reason"),
        (banning(Some(60), false), "ban"),
        (banning(None, true), "ban.duration"),
        (banning(Some(0), true), "ban.duration"),
        (banning(Some(-1), true), "ban.duration"),
        (banning(Some(31 * 24 * 3600), true), "ban.duration"),
        (filtered(in_room("no room")), "filter.room"),
        (filtered(no_peer), "filter.peer"),
        (filtered(no_api), "filter.api"),
    ] {
        is_invalid(admin.kick_connections(request).await, field);
    }
    all_are_still_there(members).await;
}

#[tokio::test]
async fn unknown_connection_is_not_found() {
    let (server, mut admin, members) = begins().await;
    let kick = admin.kick_connections(of_id(NOBODY)).await;
    assert_eq!(kick.unwrap_err().code(), Code::NotFound);
    let get = |id: &str| GetConnectionRequest { id: id.to_owned() };
    assert_eq!(admin.get_connection(get(NOBODY)).await.unwrap_err().code(), Code::NotFound);
    for id in ["", "not-an-id", "000000000000"] {
        is_invalid(admin.get_connection(get(id)).await, "id");
    }
    // With one who is there: that one is ended, and the other one named.
    let mut ann = server.join_as("blue", "ann").await;
    let id = server.id_of("ann").await;
    let ids = vec![id.clone(), NOBODY.to_owned()];
    let kicked = admin.kick_connections(KickConnectionsRequest { ids, ..Default::default() }).await;
    let kicked = kicked.unwrap().into_inner();
    assert_eq!((kicked.kicked_count, kicked.not_found), (1, vec![NOBODY.to_owned()]));
    ann.ends_with(Code::PermissionDenied).await;
    until("the end of ann", async || admin.get_connection(get(&id)).await.is_err()).await;
    assert_eq!(admin.kick_connections(of_id(&id)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(admin.get_connection(get(&id)).await.unwrap_err().code(), Code::NotFound);
    all_are_still_there(members).await;
}

#[tokio::test]
async fn ended_connection_is_not_found() {
    let (server, mut admin, _members) = begins().await;
    let mut wrong = Vec::new();
    for n in 0..300 {
        let name = format!("comer {n}");
        let mut member = server.join_as("blue", &name).await;
        let filter = Some(ConnectionFilter { name, ..Default::default() });
        let kicked = admin.kick_connections(KickConnectionsRequest { filter, ..Default::default() }).await;
        let id = kicked.unwrap().into_inner().kicked[0].id.clone();
        member.ends_with(Code::PermissionDenied).await;
        let again = admin.kick_connections(of_id(&id)).await;
        wrong.extend(again.ok().map(|answer| (n, answer.into_inner())));
    }
    assert!(wrong.is_empty(), "{} of 300, among them {:?}", wrong.len(), wrong[0]);
}

#[tokio::test]
async fn id_spelling_does_not_matter() {
    let (server, mut admin, _members) = begins().await;
    for written in [str::to_uppercase, |id: &str| id.replace('-', ""), |id: &str| format!("urn:uuid:{id}")] {
        let mut ann = server.join_as("blue", "ann").await;
        let filter = ConnectionFilter { name: "ann".to_owned(), ..Default::default() };
        let list = ListConnectionsRequest { filter: Some(filter), ..Default::default() };
        let listed = admin.list_connections(list).await.unwrap().into_inner().connections;
        let id = written(&listed[0].id);
        let kicked = admin.kick_connections(of_id(&id)).await.map(tonic::Response::into_inner);
        match kicked {
            Ok(kicked) => {
                assert_eq!((kicked.kicked_count, kicked.not_found), (1, vec![]), "{id}");
                ann.ends_with(Code::PermissionDenied).await;
            }
            // To insist on one way of writing would be fine, too.
            refused => is_invalid(refused, "ids"),
        }
    }
}

#[tokio::test]
async fn invalid_page_token_or_size_is_refused() {
    let (_server, mut admin, _members) = begins().await;
    let of_two = ListConnectionsRequest { page_size: 2, ..Default::default() };
    let page = admin.list_connections(of_two.clone()).await.unwrap().into_inner();
    let ours = page.next_page_token;
    assert!(!ours.is_empty() && page.connections.len() == 2);
    let rooms = admin.list_rooms(ListRoomsRequest { page_size: 2, page_token: String::new() }).await;
    let of_rooms = rooms.unwrap().into_inner().next_page_token;
    let mut spoilt = ours.clone();
    spoilt.replace_range(0..1, if spoilt.starts_with('0') { "1" } else { "0" });

    for page_token in ["forged", &spoilt, &ours[1..], &of_rooms, "ü"] {
        let request = ListConnectionsRequest { page_token: page_token.to_owned(), ..of_two.clone() };
        is_invalid(admin.list_connections(request).await, "page_token");
    }
    let mut other_filter = ListConnectionsRequest { page_token: ours.clone(), ..of_two.clone() };
    other_filter.filter = Some(in_room("a"));
    is_invalid(admin.list_connections(other_filter).await, "page_token");
    let order = ConnectionOrder::Bytes.into();
    let other_order = ListConnectionsRequest { page_token: ours.clone(), order, ..of_two.clone() };
    is_invalid(admin.list_connections(other_order).await, "page_token");
    let no_order = ListConnectionsRequest { order: 99, ..of_two.clone() };
    is_invalid(admin.list_connections(no_order).await, "order");
    let negative = ListConnectionsRequest { page_size: -1, ..Default::default() };
    is_invalid(admin.list_connections(negative).await, "page_size");
    for page_token in [&ours, "forged"] {
        let request = ListRoomsRequest { page_size: 2, page_token: page_token.to_owned() };
        is_invalid(admin.list_rooms(request).await, "page_token");
    }
    let negative = ListRoomsRequest { page_size: i32::MIN, page_token: String::new() };
    is_invalid(admin.list_rooms(negative).await, "page_size");

    // Another size is the same list.
    let rest = ListConnectionsRequest { page_size: 1000, page_token: ours, ..Default::default() };
    let rest = admin.list_connections(rest).await.unwrap().into_inner();
    assert_eq!((rest.connections.len(), rest.next_page_token.as_str()), (1, ""));
}

#[tokio::test]
async fn announcements_and_log_filters_are_limited() {
    let (_server, mut admin, members) = begins().await;
    let announce = |room: &str, text: &str| AnnounceRequest { room: room.to_owned(), text: text.to_owned() };
    is_invalid(admin.announce(announce("a", "")).await, "text");
    is_invalid(admin.announce(announce("", &"x".repeat(64 * 1024))).await, "text");
    is_invalid(admin.announce(announce("no room", "hi")).await, "room");
    let unknown = admin.announce(announce("nowhere", "hi")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let watched = admin.watch_connections(WatchConnectionsRequest { room: "no room".to_owned() }).await;
    is_invalid(watched.map(drop), "room");
    let filter = |filter: &str, seconds: Option<i64>| {
        let expiry = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        SetLogFilterRequest { filter: filter.to_owned(), expiry }
    };
    for (request, field) in [
        (filter("chatroom=loud", None), "filter"),
        (filter(&"x".repeat(100_000), None), "filter"),
        (filter("debug", Some(0)), "expiry"),
        (filter("debug", Some(-5)), "expiry"),
        (filter("debug", Some(24 * 3600 + 1)), "expiry"),
    ] {
        is_invalid(admin.set_log_filter(request).await, field);
    }
    all_are_still_there(members).await;
}

#[tokio::test]
async fn remove_ban_without_ban_is_not_found() {
    let (_server, mut admin, members) = begins().await;
    let removing = |target| RemoveBanRequest { target };
    for (target, field) in [
        (None, "target"),
        (Some(Target::Address("10.0.0.7:40112".to_owned())), "address"),
        (Some(Target::Address("nowhere".to_owned())), "address"),
        (Some(Target::Name(String::new())), "name"),
    ] {
        is_invalid(admin.remove_ban(removing(target)).await, field);
    }
    for target in [Target::Address("10.0.0.7".to_owned()), Target::Name("nobody".to_owned())] {
        let status = admin.remove_ban(removing(Some(target))).await.unwrap_err();
        let reason = status.get_details_error_info().unwrap().reason;
        assert_eq!((status.code(), &*reason), (Code::NotFound, "BAN_NOT_FOUND"));
    }
    let forged = ListBansRequest { page_token: "forged".to_owned(), ..Default::default() };
    is_invalid(admin.list_bans(forged).await, "page_token");
    is_invalid(admin.list_bans(ListBansRequest { page_size: -1, ..Default::default() }).await, "page_size");
    all_are_still_there(members).await;
}
