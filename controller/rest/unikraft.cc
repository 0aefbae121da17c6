#include "controller/rest/unikraft.h"

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "bunker/v1/image.pb.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/api/convert.h"
#include "controller/api/errors.h"
#include "controller/rest/envelope.h"
#include "controller/rest/json_codec.h"
#include "controller/rest/json_value.h"
#include "controller/rest/request_reader.h"

namespace bunker::controller {
namespace {

constexpr char kMethod[] = "bunker.v1.Images.ListImages";
constexpr size_t kMaxUsers = 1000;

struct Wanted {
  bool by_digest = false;
  std::string text;
};

absl::StatusOr<Wanted> ReadWanted(const HttpRequest& request) {
  if (request.target.find('?') != std::string::npos)
    return ValidationError("", "a look-up by a body takes no query; leave one of them out");
  RETURN_IF_ERROR(CheckMediaType(request));
  JsonValue json;
  JsonError error;
  if (!ParseJson(request.body, JsonLimits(), &json, &error))
    return ValidationError(error.field, error.message);
  constexpr char kOne[] = "send one of digest, tag: {\"tag\": \"user/image:tag\"}";
  if (json.kind != JsonValue::Kind::kObject || json.members.size() != 1)
    return ValidationError("", kOne);
  const auto& [key, value] = json.members.front();
  if (key != "digest" && key != "tag") return ValidationError(key, kOne);
  if (value.kind != JsonValue::Kind::kString || value.text.empty())
    return ValidationError(key, "must be a string that names an image");
  return Wanted{key == "digest", value.text};
}

// A reference names one image; a digest or a tag alone filters them.
std::vector<RowPtr<Image>> Find(const CallContext& context, const Wanted& wanted) {
  const bool is_reference = wanted.by_digest ? wanted.text.find('@') != std::string::npos
                                             : wanted.text.find_first_of("/:") != std::string::npos;
  if (is_reference) {
    const auto image = context.engine.FindImage(context.caller, wanted.text);
    return image.ok() ? std::vector<RowPtr<Image>>{*image} : std::vector<RowPtr<Image>>{};
  }
  ImageFilter filter;
  (wanted.by_digest ? filter.digest : filter.tag) = wanted.text;
  return context.engine.ListImages(context.caller, filter, PageSpec()).rows;
}

// "registry.example:5000/user/image:tag" → "user/image:tag".
std::string ShortTag(const std::string& tag) {
  std::string text = tag;
  const size_t slash = text.find('/');
  if (slash != std::string::npos) {
    const std::string first = text.substr(0, slash);
    const bool host = first.find_first_of(".:") != std::string::npos || first == "localhost";
    if (host) text.erase(0, slash + 1);
  }
  constexpr std::string_view kLibrary = "library/";
  if (text.compare(0, kLibrary.size(), kLibrary) == 0) text.erase(0, kLibrary.size());
  return text;
}

void AppendTexts(std::string* out, const std::vector<std::string>& texts) {
  *out += '[';
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) *out += ',';
    AppendJsonString(out, texts[i]);
  }
  *out += ']';
}

void AppendRow(std::string* out, const CallContext& context, const Image& image) {
  v1::Image row;
  ToMessage(image, context.engine.CacheSummaryOf(context.caller, image.id), &row);
  for (std::string& tag : *row.mutable_tags()) tag = ShortTag(tag);
  const bool root = context.caller.super_admin();
  *out += '{';
  bool first = true;
  for (int i = 0; i < row.GetDescriptor()->field_count(); ++i) {
    const auto* field = row.GetDescriptor()->field(i);
    const std::string& name = field->name();
    if (name == "owner" && !root) continue;
    if ((name == "args" || name == "env") && row.GetReflection()->FieldSize(row, field) == 0)
      continue;
    if (!std::exchange(first, false)) *out += ',';
    AppendJsonString(out, name);
    *out += ':';
    AppendFieldJson(out, row, field);
  }
  if (root) {
    *out += ",\"users\":";
    AppendTexts(out, context.engine.UsersWhoSee(image.ownership, kMaxUsers));
  }
  *out += '}';
}

}  // namespace

bool IsUnikraftLookUp(const Route& route, const HttpRequest& request) {
  return route.method->full_name() == kMethod && !request.body.empty();
}

void StartUnikraftLookUp(Dispatcher& dispatcher, CallInfo info, const HttpRequest& request,
                         std::shared_ptr<HttpExchange> exchange) {
  const std::string id = info.request_id;
  const auto refuse = [exchange, id](const absl::Status& status) {
    exchange->Send(ErrorResponse(ViewOf(status), id));
  };
  auto run = [exchange, id, refuse, wanted = ReadWanted(request)](CallContext& context) {
    if (!wanted.ok()) {
      return context.turn.AfterCommit(
          [refuse, status = wanted.status()](const absl::Status&) { refuse(status); });
    }
    std::string rows = "[";
    for (const RowPtr<Image>& image : Find(context, *wanted)) {
      if (rows.size() > 1) rows += ',';
      AppendRow(&rows, context, *image);
    }
    rows += ']';
    context.turn.AfterCommit(
        [exchange, id, refuse, rows = std::move(rows)](const absl::Status& committed) {
          if (!committed.ok()) return refuse(committed);
          exchange->Send(OkListResponse(rows, id));
        });
  };
  dispatcher.Admit(kMethod, std::move(info), std::move(run), refuse);
}

}  // namespace bunker::controller
