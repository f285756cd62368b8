//! Kafka: one node that is broker and controller (KRaft).

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{KafkaServer, Kind, Place, run};
use crate::port;

/// Where `tests/install/servers` lays the jars, below the cache directory.
const JARS: &str = "shock-absorber/kafka-4.3.0";

const LOGGING: &str = "
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
";

/// A listener of its own, for clients that are to come through a proxy: a broker names to its clients the address to
/// come back to, by the listener that they came in by.
#[derive(Debug, Clone)]
pub struct Door {
    /// The listener's name, in capitals.
    pub name: String,
    /// Where the broker listens.
    pub port: u16,
    /// The port that it tells its clients.
    pub advertised: u16,
}

/// How a Kafka is started.
#[derive(Debug, Default)]
pub struct Kafka {
    controller_port: u16,
    doors: Vec<Door>,
    properties: Vec<(String, String)>,
}

impl Kind for Kafka {
    const NAME: &'static str = "kafka";
    const PATIENCE: Duration = Duration::from_secs(120);

    async fn prepare(&mut self, place: &Place) -> Result<()> {
        self.controller_port = port::free()?;
        fs::write(place.dir.join("log4j2.properties"), LOGGING)?;
        fs::write(place.dir.join("server.properties"), self.server_properties(place))?;
        let mut format = java(&place.dir)?;
        // 16 bytes in base64url: any will do, for each node is alone.
        format.args(["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c"]);
        format.arg(place.dir.join("server.properties"));
        run(format).await.map(drop)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = java(&place.dir)?;
        command.arg("kafka.Kafka").arg(place.dir.join("server.properties"));
        Ok(command)
    }

    async fn answers(&self, place: &Place) -> bool {
        knows_a_broker(place.port).await.unwrap_or(false)
    }
}

impl Kafka {
    fn server_properties(&self, place: &Place) -> String {
        let Place { dir, port } = place;
        let controller = self.controller_port;
        let doors = |text: fn(&Door) -> String| self.doors.iter().map(text).collect::<String>();
        let listeners = doors(|door| format!(",{}://127.0.0.1:{}", door.name, door.port));
        let advertised = doors(|door| format!(",{}://127.0.0.1:{}", door.name, door.advertised));
        let protocols = doors(|door| format!(",{}:PLAINTEXT", door.name));
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
             controller.listener.names=CONTROLLER\n\
             inter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             # With the new group protocol these are the broker's; its own are 45 s and 5 s.\n\
             group.consumer.min.session.timeout.ms=6000\n\
             group.consumer.session.timeout.ms=6000\n\
             group.consumer.min.heartbeat.interval.ms=500\n\
             group.consumer.heartbeat.interval.ms=500\n\
             # A broker that was killed is let in again only when its old session has run out.\n\
             broker.session.timeout.ms=2000\n\
             broker.heartbeat.interval.ms=250\n",
            dir.join("data").display()
        );
        for (name, value) in &self.properties {
            text.push_str(&format!("{name}={value}\n"));
        }
        text
    }
}

/// A JVM that is small and quick to start, with Kafka's jars.
fn java(dir: &Path) -> Result<Command> {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.properties").display()));
    command.arg("-cp").arg(jars()?.join("*"));
    Ok(command)
}

fn jars() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no cache to find Kafka in")?;
    let jars = cache.join(JARS);
    ensure!(jars.is_dir(), "there is no Kafka in {}: tests/install/servers fetches it", jars.display());
    Ok(jars)
}

/// Asks for the metadata of no topic (Metadata, version 4). A node that has just come back answers without brokers until
/// it is let in.
async fn knows_a_broker(port: u16) -> Result<bool> {
    let mut request: Vec<u8> = Vec::new();
    request.extend(3i16.to_be_bytes()); // Metadata
    request.extend(4i16.to_be_bytes()); // its version
    request.extend(7i32.to_be_bytes()); // correlation id
    request.extend((-1i16).to_be_bytes()); // no client id
    request.extend(0i32.to_be_bytes()); // no topics
    request.push(0); // make none

    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&u32::try_from(request.len())?.to_be_bytes()).await?;
    stream.write_all(&request).await?;
    // Size, correlation id, throttle time; then the brokers' number.
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await?;
    let [.., a, b, c, d] = answer;
    Ok(answer[4..8] == 7i32.to_be_bytes() && i32::from_be_bytes([a, b, c, d]) >= 1)
}

impl KafkaServer {
    /// Starts a Kafka.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start() -> Result<Self> {
        Self::start_kind(Kafka::default()).await
    }

    /// Starts a Kafka with broker properties of your own after ours.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with(properties: &[(&str, &str)]) -> Result<Self> {
        Self::start_with_doors(properties, Vec::new()).await
    }

    /// The same with more ways in.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with_doors(properties: &[(&str, &str)], doors: Vec<Door>) -> Result<Self> {
        let properties = properties.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        Self::start_kind(Kafka { properties, doors, ..Kafka::default() }).await
    }

    /// `127.0.0.1:PORT`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Runs one of Kafka's own tools on this broker, such as `TopicCommand` with `["--list"]`; returns what it prints.
    ///
    /// # Errors
    /// If the tool fails.
    pub async fn tool(&self, class: &str, arguments: &[&str]) -> Result<String> {
        let mut command = java(self.dir())?;
        command.arg(format!("org.apache.kafka.tools.{class}")).args(["--bootstrap-server", &self.brokers()]);
        command.args(arguments);
        run(command).await
    }
}
