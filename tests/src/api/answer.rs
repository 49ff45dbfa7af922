//! One request from its arrival to the answer, the faults that it meets included.

use std::io;
use std::time::Duration;

use futures::future::pending;
use futures::{Stream, StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::{Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::call::Call;
use super::fault::Fault;
use super::read;
use super::refusal::Refusal;
use super::state::Shared;
use super::watch;
use super::write;

/// The body of an answer: each line of a watch is a frame.
pub type ApiBody = UnsyncBoxBody<Bytes, io::Error>;

/// How long a list waits for a version from the future.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// Answers a request, or breaks the connection where a fault asks for that.
pub async fn answer<B>(shared: Shared, request: Request<B>) -> io::Result<Response<ApiBody>>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if parts.uri.path() == "/version" {
        return Ok(json_answer(StatusCode::OK, &json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.2" })));
    }
    let call = match Call::parse(&parts, &body) {
        Ok(call) => call,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let fault = shared.lock().arrive(&call.request);
    pass_black_hole(&shared).await;
    match fault {
        Some(Fault::Refuse) => return Err(io::ErrorKind::ConnectionRefused.into()),
        Some(Fault::Hang) => pending().await,
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Status { code, retry_after_s }) => return Ok(refused(&Refusal::injected(code, retry_after_s))),
        Some(Fault::Cut { .. } | Fault::NoBookmarks) | None => {}
    }
    let response = dispatch(&shared, &call, fault).await.unwrap_or_else(|refusal| refused(&refusal));
    Ok(match fault {
        Some(Fault::Cut { after_lines }) => response.map(|body| cut(body, after_lines)),
        _ => response,
    })
}

async fn pass_black_hole(shared: &Shared) {
    let mut news = shared.news();
    while shared.lock().is_black_hole {
        // The bell hangs in `shared`, so it cannot be gone.
        let _ = news.changed().await;
    }
}

async fn dispatch(shared: &Shared, call: &Call, fault: Option<Fault>) -> Result<Response<ApiBody>, Refusal> {
    shared.lock().authorize(call)?;
    let object = match call.request.verb {
        "watch" => {
            let lines = watch::open(shared, call, fault != Some(Fault::NoBookmarks))?;
            return Ok(streamed(StatusCode::OK, lines));
        }
        "list" => {
            wait_for_version(shared, read::awaited_version(&call.request)?).await?;
            read::list(&shared.lock().store, call)?
        }
        "get" => read::get(&shared.lock().store, call)?,
        "create" => shared.change(|state| write::create(&mut state.store, call))?,
        "update" => shared.change(|state| write::update(&mut state.store, call))?,
        "patch" => shared.change(|state| write::patch(&mut state.store, call))?,
        "delete" => shared.change(|state| write::delete(&mut state.store, call))?,
        _ => return Err(Refusal::method_not_allowed()),
    };
    let code = if call.request.verb == "create" { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_answer(code, &object))
}

async fn wait_for_version(shared: &Shared, wanted: u64) -> Result<(), Refusal> {
    let mut news = shared.news();
    let arrival = async {
        while shared.lock().store.version() < wanted {
            let _ = news.changed().await;
        }
    };
    let is_here = timeout(FRESHNESS_WAIT, arrival).await.is_ok();
    is_here.then_some(()).ok_or_else(|| Refusal::too_large_version(wanted, shared.lock().store.version()))
}

fn refused(refusal: &Refusal) -> Response<ApiBody> {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_answer(code, &refusal.status());
    if let Some(seconds) = refusal.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json_answer(code: StatusCode, object: &Value) -> Response<ApiBody> {
    streamed(code, stream::iter([Ok(Bytes::from(object.to_string()))]))
}

fn streamed(code: StatusCode, lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<ApiBody> {
    let frames = StreamBody::new(lines.map(|line| line.map(Frame::data)));
    let mut response = Response::new(frames.boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Lets some lines through, then half a line, then breaks the connection.
fn cut(body: ApiBody, after_lines: usize) -> ApiBody {
    let lines = stream::unfold((body.into_data_stream(), Some(after_lines)), async |(mut lines, whole_lines)| {
        let Some(whole_lines) = whole_lines else {
            // What was sent leaves the buffers of the HTTP server before the connection breaks.
            tokio::task::yield_now().await;
            return Some((Err(io::ErrorKind::ConnectionReset.into()), (lines, None)));
        };
        let line = lines.next().await?;
        let line = line.map(|line| if whole_lines == 0 { line.slice(..line.len() / 2) } else { line });
        Some((line.map(Frame::data), (lines, whole_lines.checked_sub(1))))
    });
    StreamBody::new(lines).boxed_unsync()
}
