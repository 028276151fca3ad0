//! `/v1/projects/{project}/images`, and the bytes of an upload.
//!
//! An upload is a series of `PATCH …/content` with `Upload-Offset: N` and a body of any length. Each answer has the
//! new offset. After a break, `HEAD …/content` tells where to go on.

use std::time::{Duration, Instant};

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bmi_api::{
    Code, Fault, Image, NewImage, NewImageBody, NewImageImport, NewImageImportStored, Operation, Page,
    Sharing, SharingPatch,
};
use bmi_types::ImageFormat;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};

use super::answer::{Answer, ApiError, no_such_method};
use super::cursor::Query;
use super::guard::identify;
use super::idempotency::once;
use super::openapi::{IfMatch, PageQuery, UploadAt, UploadBytes};
use super::request::{Request, principal};
use crate::app::upload::{Uploading, upload_begin};
use crate::app::{App, image as app};

/// Bytes that are written to the store at once.
const CHUNK: usize = 4 << 20;
/// How long an upload may be silent: a client that lost its network must not keep its image to itself.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often the caller of a long upload is asked again who it is, and whether it may.
const ASK_AGAIN: Duration = Duration::from_secs(5);

static UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

pub(super) fn routes(config: &mut web::ServiceConfig) {
    const ALL: &str = "/v1/projects/{project}/images";
    const ONE: &str = "/v1/projects/{project}/images/{image}";
    let all = web::resource(ALL).get(list).post(create).default_service(web::to(no_such_method));
    let one = web::resource(ONE).get(show).delete(delete).default_service(web::to(no_such_method));
    let seal = web::resource(format!("{ONE}/seal")).post(seal).default_service(web::to(no_such_method));
    let content = web::resource(format!("{ONE}/content"))
        .patch(upload)
        .route(web::head().to(offset))
        .default_service(web::to(no_such_method));
    let sharing = web::resource(format!("{ONE}/sharing"))
        .get(sharing)
        .patch(share)
        .default_service(web::to(no_such_method));
    config.service(all).service(one).service(seal).service(sharing).service(content);
}

/// Creates an image to upload to, or imports one from the server's import directory or its store.
#[utoipa::path(post, path = "/v1/projects/{project}/images", request_body = NewImageBody,
    responses((status = 201, body = Image), (status = 202, description = "The import has begun.", body = Operation)))]
pub(super) async fn create(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        let mut fields = request.fields()?;
        let name = fields.required("name");
        let project = request.path("project");
        if fields.has("import_rbd") {
            for field in ["import_file", "virtual_size", "file_size", "format"] {
                if fields.optional::<serde_json::Value>(field).is_some() {
                    fields.fault(field, "does not go with `import_rbd`, which is raw and has its own size");
                }
            }
            let source: Option<String> = fields.required("import_rbd");
            let new = fields.finish(|| Some(NewImageImportStored { name: name?, source: source? }))?;
            let operation = app::image_import_stored(&request.app, &request.caller, project, new).await?;
            return Answer::accepted(&operation);
        }
        if fields.has("import_file") {
            for field in ["virtual_size", "file_size"] {
                if fields.optional::<serde_json::Value>(field).is_some() {
                    fields.fault(field, "is read from the file when `import_file` is given");
                }
            }
            let file: Option<String> = fields.required("import_file");
            let format = fields.optional("format").unwrap_or_default();
            let new = fields.finish(|| Some(NewImageImport { name: name?, file: file?, format }))?;
            let operation = app::image_import(&request.app, &request.caller, project, new).await?;
            return Answer::accepted(&operation);
        }
        let virtual_size = fields.required("virtual_size");
        let sent = (fields.has("format"), fields.has("file_size"));
        let (asked, file_size) = (fields.optional::<ImageFormat>("format"), fields.optional("file_size"));
        let format = asked.unwrap_or_default();
        // A format or a size that cannot be read is told already.
        if sent == (asked.is_some(), file_size.is_some()) {
            fields.faults(app::file_size_fault(format, file_size).map(size_fault).into_iter().collect());
        }
        let new = fields
            .finish(|| Some(NewImage { name: name?, virtual_size: virtual_size?, format, file_size }))?;
        let image = app::image_create(&request.app, &request.caller, project, new).await?;
        let location = format!("/v1/projects/{}/images/{}", image.project, image.id);
        let version = image.version;
        Answer::created(image, location, version)
    })
    .await
}

fn size_fault(detail: String) -> Fault {
    Fault { field: "file_size".to_owned(), detail }
}

/// Lists images, oldest first.
#[utoipa::path(get, path = "/v1/projects/{project}/images", params(PageQuery), responses((status = 200, body = Page<Image>)))]
pub(super) async fn list(request: Request) -> Result<HttpResponse, ApiError> {
    let query = Query::read(&request, "images", &[])?;
    let project = request.path("project");
    let items = app::image_list(&request.app, &request.caller, project, query.after()).await?;
    Ok(query.page(items, |image| image.id.uuid())?.respond())
}

/// Shows an image.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}", responses((status = 200, body = Image)))]
pub(super) async fn show(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, image) = (request.path("project"), request.path("image"));
    let image = app::image_show(&request.app, &request.caller, project, image).await?;
    let version = image.version;
    Ok(Answer::versioned(image, version)?.respond())
}

/// Makes an uploaded image immutable: a golden image.
#[utoipa::path(post, path = "/v1/projects/{project}/images/{image}/seal", params(IfMatch), responses((status = 202, body = Operation)))]
pub(super) async fn seal(request: Request) -> Result<HttpResponse, ApiError> {
    once(request, |request| async move {
        request.no_fields()?;
        let (project, image) = (request.path("project"), request.path("image"));
        let operation =
            app::image_seal(&request.app, &request.caller, project, image, request.if_match).await?;
        Answer::accepted(&operation)
    })
    .await
}

/// Shows who else may clone an image.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}/sharing", responses((status = 200, body = Sharing)))]
pub(super) async fn sharing(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, image) = (request.path("project"), request.path("image"));
    let (sharing, version) = app::image_sharing(&request.app, &request.caller, project, image).await?;
    Ok(Answer::versioned(sharing, version)?.respond())
}

/// Changes who else may clone an image. What was cloned stays.
#[utoipa::path(patch, path = "/v1/projects/{project}/images/{image}/sharing", params(IfMatch), request_body = SharingPatch, responses((status = 200, body = Sharing)))]
pub(super) async fn share(request: Request) -> Result<HttpResponse, ApiError> {
    let mut fields = request.sent_fields()?;
    let visibility = fields.required("visibility");
    let projects = fields.list("projects");
    let patch = fields.finish(|| Some(SharingPatch { visibility: visibility?, projects }))?;
    let (project, image) = (request.path("project"), request.path("image"));
    let (sharing, version) =
        app::image_share(&request.app, &request.caller, project, image, patch, request.if_match).await?;
    Ok(Answer::versioned(sharing, version)?.respond())
}

/// Deletes an image.
#[utoipa::path(delete, path = "/v1/projects/{project}/images/{image}", params(IfMatch), responses((status = 202, body = Operation)))]
pub(super) async fn delete(request: Request) -> Result<HttpResponse, ApiError> {
    request.no_fields()?;
    let (project, image) = (request.path("project"), request.path("image"));
    let operation =
        app::image_delete(&request.app, &request.caller, project, image, request.if_match).await?;
    Ok(Answer::accepted(&operation)?.respond())
}

fn at(response: &mut actix_web::HttpResponseBuilder, offset: u64) -> &mut actix_web::HttpResponseBuilder {
    response.insert_header((UPLOAD_OFFSET.clone(), offset.to_string()))
}

/// Tells where an upload goes on.
#[utoipa::path(head, path = "/v1/projects/{project}/images/{image}/content", responses((status = 200, headers(("Upload-Offset" = u64, description = "The byte to go on at.")))))]
pub(super) async fn offset(request: Request) -> Result<HttpResponse, ApiError> {
    let (project, image) = (request.path("project"), request.path("image"));
    let image = app::image_show(&request.app, &request.caller, project, image).await?;
    let sealed = || ApiError::new(Code::WrongState, "the image takes no more bytes");
    let upload = image.upload.ok_or_else(sealed)?;
    Ok(at(&mut HttpResponse::Ok(), upload.offset.bytes()).finish())
}

/// The next bytes of a body; nothing at its end, when it breaks, and when it is silent for too long.
async fn next_within<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    silence: Duration,
) -> Option<Bytes> {
    tokio::time::timeout(silence, body.next()).await.ok()??.ok()
}

/// Takes bytes as they come, in chunks that are durable before the offset moves.
/// Takes the next bytes of an upload. They are durable before the offset moves.
#[utoipa::path(patch, path = "/v1/projects/{project}/images/{image}/content", params(UploadAt),
    request_body(content = Option<UploadBytes>, content_type = "application/octet-stream", description = "The next bytes."),
    responses((status = 204, headers(("Upload-Offset" = u64, description = "The byte to go on at.")))))]
pub(super) async fn upload(http: HttpRequest, mut payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let (app, caller) = principal(&http)?;
    let part = |name: &str| http.match_info().get(name).unwrap_or_default().to_owned();
    let sent = http.headers().get(&UPLOAD_OFFSET).and_then(|value| value.to_str().ok()?.parse().ok());
    let missing = || ApiError::new(Code::BadRequest, "Upload-Offset must say at which byte the body begins");
    let sent = sent.ok_or_else(missing)?;
    let begun = upload_begin(&app, &caller, part("project"), part("image"), sent).await;
    let mut uploading = match begun {
        Ok(uploading) => uploading,
        Err(error) => {
            // The caller is told where to go on: the header is what a client resumes by.
            let error = ApiError::from(error);
            if error.problem.code != Code::WrongOffset {
                return Err(error);
            }
            let image = app::image_show(&app, &caller, part("project"), part("image")).await?;
            let offset = image.upload.map_or(0, |upload| upload.offset.bytes());
            return Err(error.with_header(UPLOAD_OFFSET.clone(), HeaderValue::from(offset)));
        }
    };
    let announced =
        http.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let received = receive((&app, &http), &mut uploading, announced.unwrap_or(0), &mut payload).await;
    let offset = uploading.offset();
    uploading.end().await?;
    received?;
    Ok(at(&mut HttpResponse::NoContent(), offset).finish())
}

/// Writes a body as it comes. What was received before a break is kept; the client asks where to go on.
async fn receive(
    (app, http): (&App, &HttpRequest),
    uploading: &mut Uploading,
    announced: u64,
    payload: &mut web::Payload,
) -> Result<(), ApiError> {
    uploading.fits(announced)?;
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let mut asked = Instant::now();
    while let Some(bytes) = next_within(payload, SILENCE_MAX).await {
        buffer.extend_from_slice(&bytes);
        while buffer.len() >= CHUNK {
            if asked.elapsed() > ASK_AGAIN {
                let (caller, _) = identify(app, http).await?;
                uploading.permitted(app, &caller).await?;
                asked = Instant::now();
            }
            let chunk: Bytes = buffer.split_to(CHUNK).freeze();
            uploading.write(app, chunk).await?;
        }
    }
    if !buffer.is_empty() {
        uploading.write(app, buffer.freeze()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_silent_body_ends() {
        let silence = Duration::from_millis(20);
        let mut body = stream::iter([Ok::<_, ()>(Bytes::from_static(b"a"))]).chain(stream::pending());
        assert_eq!(next_within(&mut body, silence).await.as_deref(), Some(b"a".as_slice()));
        assert_eq!(next_within(&mut body, silence).await, None);
        assert_eq!(next_within(&mut stream::iter([Err::<Bytes, _>(())]), silence).await, None);
    }
}
