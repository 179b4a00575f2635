//! The proxy's refusals, held against `microburst`'s, which takes formats and codes from botocore's service models.
//!
//! Were they wrong, the SDK would not understand them, and every proof here would be one of something AWS never says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use snapwarden_proxy::{Calls, Effect, Proxy, Rule};

/// A service's name in signatures, and the start of a request to it.
const REQUESTS: [(&str, &str); 9] = [
    ("ec2", "POST / \nAction=DescribeSnapshots&Version=2016-11-15"),
    ("iam", "POST / \nAction=GetRole&Version=2010-05-08"),
    ("sns", "POST / \nAction=GetTopicAttributes&Version=2010-03-31"),
    ("sqs", "POST / x-amz-target: AmazonSQS.CreateQueue\n{}"),
    ("ssm", "POST / x-amz-target: AmazonSSM.PutParameter\n{}"),
    ("logs", "POST / x-amz-target: Logs_20140328.DescribeLogGroups\n{}"),
    ("lambda", "GET /2015-03-31/functions/f \n"),
    ("scheduler", "GET /schedules/s \n"),
    (
        "monitoring",
        "POST /service/GraniteServiceVersion20100801/operation/DescribeAlarms smithy-protocol: rpc-v2-cbor\n",
    ),
];

/// `cargo xtask test --long` installs it.
#[test]
#[ignore = "needs `cargo xtask test --long`, which installs microburst"]
fn refusals_are_written_as_botocore_expects_them() {
    let peers = PathBuf::from(std::env::var_os("SNAPWARDEN_PEERS").expect("cargo xtask test --long"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _microburst = Microburst::start(&peers, port);
    let proxy = Proxy::listen(0, 0).unwrap();
    proxy.connect("http://127.0.0.1:9", "http://127.0.0.1:9").unwrap();
    let ours = proxy.general().trim_start_matches("http://").to_owned();
    let theirs = format!("127.0.0.1:{port}");
    let mut compared = 0;
    for effect in [Effect::Throttle, Effect::InternalError] {
        proxy.rule(vec![Rule::from(1, usize::MAX, Calls::All, effect)]);
        for (service, request) in REQUESTS {
            let our = Answer::to(&ours, service, request);
            let rules = json!([{ "service": "*", "error": { "code": our.code } }]).to_string();
            exchange(&theirs, &format!("POST /_microburst/rules HTTP/1.1\r\n{}", body(&rules)));
            let their = Answer::to(&theirs, service, request);
            assert_eq!(our.status, their.status, "{service} {effect:?}: {our:?} {their:?}");
            assert_eq!(our.code, their.code, "{service} {effect:?}");
            let kind = |answer: &Answer| answer.content.split(['-', '+', ';']).next().unwrap().to_owned();
            assert_eq!(kind(&our), kind(&their), "{service} {effect:?}");
            compared += 1;
        }
    }
    println!("{compared} refusals compared with microburst's");
}

struct Microburst(Child);

impl Microburst {
    fn start(peers: &std::path::Path, port: u16) -> Self {
        let mut command = Command::new(peers.join("bin/microburst"));
        command.args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--upstream",
            "http://127.0.0.1:9",
        ]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("microburst starts");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "microburst does not answer");
            sleep(Duration::from_millis(50));
        }
        Self(child)
    }
}

impl Drop for Microburst {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: String,
    content: String,
    code: String,
}

impl Answer {
    fn to(address: &str, service: &str, request: &str) -> Self {
        let (line, content) = request.split_once('\n').unwrap();
        let (method, rest) = line.split_once(' ').unwrap();
        let (path, header) = rest.split_once(' ').unwrap();
        let scope = format!("Credential=key/20261124/eu-central-1/{service}/aws4_request");
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        let answer = exchange(
            address,
            &format!(
                "{method} {path} HTTP/1.1\r\nauthorization: AWS4-HMAC-SHA256 {scope}, Signature=x\r\n{header}{}",
                body(content)
            ),
        );
        let header = |name: &str| {
            let lines = answer.lines().take_while(|line| !line.is_empty());
            let mut fields = lines.filter_map(|line| line.split_once(": "));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let between = |from: &str, to: &str| {
            let (_, rest) = answer.split_once(from)?;
            rest.split_once(to).map(|(code, _)| code.to_owned())
        };
        // In CBOR a text has its length in front; that of the next key, of seven letters, reads as a `g`.
        let in_cbor = || {
            let (_, rest) = answer.split_once("__type")?;
            let start = rest.find(|c: char| c.is_ascii_uppercase())?;
            rest[start..].split_once("gmessage").map(|(code, _)| code.to_owned())
        };
        let code = header("x-amzn-errortype")
            .or_else(|| between("<Code>", "</Code>"))
            .or_else(|| between("\"__type\":\"", "\"").or_else(|| between("\"__type\": \"", "\"")))
            .or_else(in_cbor)
            .unwrap_or_else(|| panic!("no code: {answer}"));
        Self {
            status: answer.split(' ').nth(1).unwrap().to_owned(),
            content: header("content-type").unwrap_or_default(),
            // Some put the shape's namespace in front.
            code: code.rsplit('#').next().unwrap().to_owned(),
        }
    }
}

fn body(content: &str) -> String {
    format!("host: aws\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{content}", content.len())
}

fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).replace("\r\n", "\n")
}
