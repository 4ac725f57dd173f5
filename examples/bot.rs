//! A bot that replies in a room: it repeats the text of "!shout text" in capitals. `cargo run --example bot -- ADDR ROOM`.
//! It runs until it is stopped, and survives broken connections and restarts of the server.

use chatroom::client::{Client, Error, Incoming, Join};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:50051".to_owned());
    let room = arguments.next().unwrap_or_else(|| "lobby".to_owned());
    let client = Client::connect(&address).await?;
    // Without an echo, it cannot reply to itself.
    let join = Join { display_name: "bot".to_owned(), suppress_echo: true, ..Join::room(room) };
    let (publisher, mut receiver) = client.join(join).await?.split();
    println!("the bot is in");
    while let Some(incoming) = receiver.receive().await? {
        let Incoming::Event(event) = incoming else { continue };
        if let Some(words) = event.text().and_then(|text| text.strip_prefix("!shout ")) {
            // Do not await the receipt here: the acknowledgement arrives through this same receiver.
            drop(publisher.submit("chat", words.to_uppercase()).await?);
        }
    }
    Ok(())
}
