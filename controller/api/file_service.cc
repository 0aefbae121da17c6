// Files: what REST and gRPC ask becomes the guest's operation, and its answer theirs.
#include <limits>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "bunker/v1/file.pb.h"
#include "common/base/status_macros.h"
#include "common/base/utf8.h"
#include "controller/api/auth.h"
#include "controller/api/errors.h"
#include "controller/api/file_events.h"
#include "controller/api/file_records.h"
#include "controller/api/file_transfer.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

using link::v1::FileStart;

constexpr uint32_t kMaxMode = 07777;

absl::Status CheckPath(std::string_view field, const std::string& path) {
  if (path.front() != '/')
    return ValidationError(field, "must be an absolute path: begin it with /");
  if (path.size() > 4095) return ValidationError(field, "is longer than 4095 bytes");
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ParseMode(const std::string& text) {
  uint32_t mode = 0;
  bool fits = !text.empty();
  for (const char c : text) {
    fits = fits && c >= '0' && c <= '7';
    mode = mode * 8 + static_cast<uint32_t>(c - '0');
  }
  if (!fits || mode > kMaxMode)
    return ValidationError("mode", "must be octal digits, 0 to 7777, such as 0644");
  return mode;
}

FileStart StartOf(FileStart::Op op, const std::string& path, const Caller& caller) {
  FileStart start;
  start.set_op(op);
  start.set_path(path);
  start.set_allow_root(HasPermission(caller, "root"));
  start.set_default_to_1000(!start.allow_root());
  return start;
}

std::string Joined(const std::string& folder, const std::string& name) {
  return (folder.back() == '/' ? folder : folder + "/") + name;
}

v1::FileType TypeOf(link::v1::FileRow::Type type) {
  switch (type) {
    case link::v1::FileRow::FILE: return v1::FILE_TYPE_FILE;
    case link::v1::FileRow::FOLDER: return v1::FILE_TYPE_FOLDER;
    case link::v1::FileRow::SYMLINK: return v1::FILE_TYPE_SYMLINK;
    default: return v1::FILE_TYPE_OTHER;
  }
}

// What a guest says of a file: nothing here is trusted to be text, or in range.
v1::File FileOf(const link::v1::FileRow& row, const std::string& path) {
  constexpr int64_t kMaxSeconds = 253'402'300'799;  // the year 9999
  v1::File file;
  file.set_name(ToValidUtf8(row.name()));
  file.set_path(ToValidUtf8(path));
  file.set_type(TypeOf(row.type()));
  file.set_size(std::min<uint64_t>(row.size(), std::numeric_limits<int64_t>::max()));
  file.set_mode(fmt::format("{:04o}", row.mode() & kMaxMode));
  file.set_uid(row.uid());
  file.set_gid(row.gid());
  const int64_t seconds = row.modified_ns() / 1'000'000'000;
  const int64_t nanos = row.modified_ns() % 1'000'000'000;
  auto* at = file.mutable_modified_at();
  at->set_seconds(std::clamp<int64_t>(nanos < 0 ? seconds - 1 : seconds, 0, kMaxSeconds));
  at->set_nanos(static_cast<int32_t>(nanos < 0 ? nanos + 1'000'000'000 : nanos));
  if (!row.link_target().empty()) file.set_link_target(ToValidUtf8(row.link_target()));
  return file;
}

struct Reading {
  const Cursors* cursors;
  std::string tenant_id;
  std::string list;  // what the cursors are for
  v1::ReadFileRequest request;
};

absl::StatusOr<v1::ReadFileResponse> ResponseOf(const Reading& reading, FileOutcome outcome) {
  v1::ReadFileResponse response;
  if (reading.request.stat()) {
    *response.mutable_file() = FileOf(outcome.end.row(), reading.request.path());
    return response;
  }
  std::string_view rows = outcome.rows;
  std::string last;
  for (std::string_view one = TakeRecord(&rows); !one.empty(); one = TakeRecord(&rows)) {
    link::v1::FileRow row;
    if (!row.ParseFromArray(one.data(), static_cast<int>(one.size()))) break;
    *response.add_files() = FileOf(row, Joined(reading.request.path(), row.name()));
    last = row.name();
  }
  response.set_has_more(outcome.end.has_more() && !last.empty());
  if (response.has_more())
    response.set_next_cursor(reading.cursors->Make(reading.tenant_id, reading.list, last));
  return response;
}

using Sink = std::shared_ptr<StreamSink>;

absl::Status OverRest() {
  return ValidationError("", "the bytes of files go over REST alone; use its files route");
}

void EndRefused(CallContext& context, const Sink& sink, const absl::Status& why) {
  if (context.audit != nullptr) context.audit->Refused(context.engine, context.turn, why);
  context.turn.AfterCommit([sink, why](const absl::Status&) { sink->End(why); });
}

// The one answer of a stream, and its end.
template <typename Response>
void EndWith(StreamSink& sink, const absl::StatusOr<Response>& response) {
  if (response.ok()) {
    sink.Begin();
    sink.Send(*response);
  }
  sink.End(response.status());
}

absl::StatusOr<FileStart> StartOfWrite(CallContext& context, const v1::WriteFileRequest& request,
                                       const RawBody* body) {
  if (body == nullptr) return OverRest();
  RETURN_IF_ERROR(CheckPath("path", request.path()));
  const bool unpacks = request.archive() == v1::FILE_ARCHIVE_TAR;
  FileStart start =
      StartOf(unpacks ? FileStart::UNPACK : FileStart::WRITE, request.path(), context.caller);
  if (request.has_mode()) {
    ASSIGN_OR_RETURN(const uint32_t mode, ParseMode(request.mode()));
    start.set_mode(mode);
  }
  if (body->size()) start.set_size(*body->size());
  return start;
}

void WriteFile(GuestTalkBackend* talks, CallContext& context, const v1::WriteFileRequest& request,
               Sink sink) {
  auto start = StartOfWrite(context, request, dynamic_cast<const RawBody*>(sink.get()));
  if (!start.ok()) return EndRefused(context, sink, start.status());
  context.audit->AddDetail("path=" + request.path());
  FileTransfer::Run(context, talks, request.bunker(), *std::move(start), sink,
                    [sink, path = request.path()](absl::StatusOr<FileOutcome> outcome) {
                      if (!outcome.ok()) return sink->End(outcome.status());
                      EndWith<v1::File>(*sink, FileOf(outcome->end.row(), path));
                    });
}

absl::StatusOr<FileStart> StartOfRead(const Reading& reading, CallContext& context,
                                      bool has_body) {
  const v1::ReadFileRequest& request = reading.request;
  RETURN_IF_ERROR(CheckPath("path", request.path()));
  const bool packs = request.archive() == v1::FILE_ARCHIVE_TAR;
  if (packs && request.stat())
    return ValidationError("archive", "and stat exclude each other; leave one of them out");
  if (!request.stat() && !has_body) return OverRest();
  const auto op = request.stat() ? FileStart::STAT : packs ? FileStart::PACK : FileStart::READ;
  FileStart start = StartOf(op, request.path(), context.caller);
  ASSIGN_OR_RETURN(const PageSpec page,
                   reading.cursors->PageOf(reading.tenant_id, reading.list, request));
  start.set_limit(page.limit);
  start.set_after(page.after_id);
  return start;
}

void ReadFile(GuestTalkBackend* talks, const Cursors* cursors, CallContext& context,
              const v1::ReadFileRequest& request, Sink sink) {
  auto reading = std::make_shared<Reading>(
      Reading{cursors, context.caller.tenant_id,
              "files:" + request.bunker() + ":" + request.path(), request});
  auto start =
      StartOfRead(*reading, context, dynamic_cast<const RawBody*>(sink.get()) != nullptr);
  if (!start.ok()) return EndRefused(context, sink, start.status());
  FileTransfer::Run(context, talks, request.bunker(), *std::move(start), sink,
                    [sink, reading](absl::StatusOr<FileOutcome> outcome) {
                      if (!outcome.ok() || outcome->sent_bytes) return sink->End(outcome.status());
                      EndWith(*sink, ResponseOf(*reading, *std::move(outcome)));
                    });
}

void WatchFiles(GuestTalkBackend* talks, CallContext& context, const v1::WatchFilesRequest& request,
                Sink sink) {
  const absl::Status valid = CheckPath("path", request.path());
  if (!valid.ok()) return EndRefused(context, sink, valid);
  const Sink events = MakeFileEventSink(std::move(sink));
  FileTransfer::Run(context, talks, request.bunker(),
                    StartOf(FileStart::WATCH, request.path(), context.caller), events,
                    [events](const absl::StatusOr<FileOutcome>& outcome) {
                      events->End(outcome.status());
                    });
}

template <typename Response>
void Refuse(CallContext& context, const Dispatcher::Finish<Response>& finish,
            const absl::Status& why) {
  context.turn.AfterCommit([finish, why](const absl::Status&) { finish(why); });
}

void DeleteFile(GuestTalkBackend* talks, CallContext& context, const v1::DeleteFileRequest& request,
                Dispatcher::Finish<v1::DeleteFileResponse> finish) {
  const absl::Status valid = CheckPath("path", request.path());
  if (!valid.ok()) return Refuse(context, finish, valid);
  context.audit->AddDetail("path=" + request.path());
  FileStart start = StartOf(FileStart::REMOVE, request.path(), context.caller);
  start.set_recursive(request.recursive());
  FileTransfer::Run(context, talks, request.bunker(), std::move(start), nullptr,
                    [finish, path = request.path()](absl::StatusOr<FileOutcome> outcome) {
                      if (!outcome.ok()) return finish(outcome.status());
                      v1::DeleteFileResponse response;
                      response.set_path(path);
                      response.set_removed(std::min<uint64_t>(
                          outcome->end.entries(), std::numeric_limits<int64_t>::max()));
                      finish(std::move(response));
                    });
}

// An operation whose answer is the row of what is at `path` then.
void RunForRow(GuestTalkBackend* talks, CallContext& context, const std::string& bunker,
               FileStart start, std::string path, Dispatcher::Finish<v1::File> finish) {
  FileTransfer::Run(context, talks, bunker, std::move(start), nullptr,
                    [finish, path = std::move(path)](absl::StatusOr<FileOutcome> outcome) {
                      if (!outcome.ok()) return finish(outcome.status());
                      finish(FileOf(outcome->end.row(), path));
                    });
}

void MakeFolder(GuestTalkBackend* talks, CallContext& context, const v1::MakeFolderRequest& request,
                Dispatcher::Finish<v1::File> finish) {
  absl::Status valid = CheckPath("path", request.path());
  if (!valid.ok()) return Refuse(context, finish, valid);
  context.audit->AddDetail("path=" + request.path());
  FileStart start = StartOf(FileStart::MAKE_FOLDER, request.path(), context.caller);
  if (request.has_mode()) {
    const auto mode = ParseMode(request.mode());
    if (!mode.ok()) return Refuse(context, finish, mode.status());
    start.set_mode(*mode);
  }
  start.set_parents(request.parents());
  RunForRow(talks, context, request.bunker(), std::move(start), request.path(), std::move(finish));
}

void MoveFile(GuestTalkBackend* talks, CallContext& context, const v1::MoveFileRequest& request,
              Dispatcher::Finish<v1::File> finish) {
  absl::Status valid = CheckPath("from", request.from());
  if (valid.ok()) valid = CheckPath("to", request.to());
  if (!valid.ok()) return Refuse(context, finish, valid);
  context.audit->AddDetail("from=" + request.from());
  context.audit->AddDetail("to=" + request.to());
  FileStart start = StartOf(FileStart::MOVE, request.from(), context.caller);
  start.set_to(request.to());
  start.set_overwrite(request.overwrite());
  RunForRow(talks, context, request.bunker(), std::move(start), request.to(), std::move(finish));
}

}  // namespace

void RegisterFileService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  GuestTalkBackend* const talks = deps.talks;
  dispatcher->For("bunker.v1.Files.WriteFile")
      .RegisterStream<v1::WriteFileRequest>(
          [talks](CallContext& context, const v1::WriteFileRequest& request, Sink sink) {
            WriteFile(talks, context, request, std::move(sink));
          });
  dispatcher->For("bunker.v1.Files.ReadFile")
      .RegisterStream<v1::ReadFileRequest>(
          [talks, cursors = deps.cursors](CallContext& context, const v1::ReadFileRequest& request,
                                          Sink sink) {
            ReadFile(talks, cursors, context, request, std::move(sink));
          });
  dispatcher->For("bunker.v1.Files.WatchFiles")
      .RegisterStream<v1::WatchFilesRequest>(
          [talks](CallContext& context, const v1::WatchFilesRequest& request, Sink sink) {
            WatchFiles(talks, context, request, std::move(sink));
          });
  dispatcher->For("bunker.v1.Files.DeleteFile")
      .RegisterAsync<v1::DeleteFileRequest, v1::DeleteFileResponse>(
          [talks](CallContext& context, const v1::DeleteFileRequest& request,
                  Dispatcher::Finish<v1::DeleteFileResponse> finish) {
            DeleteFile(talks, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Files.MakeFolder")
      .RegisterAsync<v1::MakeFolderRequest, v1::File>(
          [talks](CallContext& context, const v1::MakeFolderRequest& request,
                  Dispatcher::Finish<v1::File> finish) {
            MakeFolder(talks, context, request, std::move(finish));
          });
  dispatcher->For("bunker.v1.Files.MoveFile")
      .RegisterAsync<v1::MoveFileRequest, v1::File>(
          [talks](CallContext& context, const v1::MoveFileRequest& request,
                  Dispatcher::Finish<v1::File> finish) {
            MoveFile(talks, context, request, std::move(finish));
          });
}

}  // namespace bunker::controller
