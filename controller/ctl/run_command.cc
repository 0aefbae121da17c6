// What runs a row of the table of commands.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "common/base/files.h"
#include "common/base/status_macros.h"
#include "controller/ctl/command_table.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr size_t kSecretBytesMax = 64u << 10;

bool HasBody(const CommandRow& row) {
  return row.method != std::string("GET") && row.method != std::string("DELETE");
}

// A secret never stands in an argument list: the flag names a file.
bool IsSecret(const Flag& flag) {
  return flag.field == std::string("password") || flag.field == std::string("json_key");
}

absl::StatusOr<Json> SecretOf(const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path == "-" ? "/dev/stdin" : path, kSecretBytesMax));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return Json(std::move(text));
}

absl::StatusOr<Json> ValueOf(const Flag& flag, const std::vector<std::string>& texts) {
  const std::string& text = texts.back();
  if (IsSecret(flag)) return SecretOf(text);
  switch (flag.kind) {
    case Kind::kFlag:
      return Json(true);
    case Kind::kPairs:
      return ParsePairs(texts, flag.name);
    case Kind::kList: {
      // One empty text is the empty list.
      Json list = Json::array();
      for (const std::string& item : texts) {
        if (!item.empty()) list.push_back(item);
      }
      return list;
    }
    case Kind::kNumber: {
      uint64_t number = 0;
      if (text == "none") return Json(nullptr);
      if (absl::SimpleAtoi(text, &number)) return Json(number);
      return absl::InvalidArgumentError(std::string(flag.name) + " takes a number, not \"" + text +
                                        "\"");
    }
    case Kind::kBool:
      if (text == "true" || text == "false") return Json(text == "true");
      return absl::InvalidArgumentError(std::string(flag.name) + " takes true or false");
    case Kind::kText:
      break;
  }
  return Json(text);
}

// Goes behind `path`.
std::string QueryOf(const std::string& path, const Json& fields) {
  std::string query;
  for (const auto& [key, value] : fields.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    const bool first = query.empty() && path.find('?') == std::string::npos;
    query += (first ? "?" : "&") + key + "=" + Segment(text);
  }
  return query;
}

std::string CellOf(const Json& row, const Column& column) {
  switch (column.cell) {
    case Cell::kText:
      return TextAt(row, column.field);
    case Cell::kAge:
      return AgeAt(row, column.field);
    case Cell::kBytes: {
      const auto bytes = UnsignedAt(row, column.field);
      return bytes ? FormatBytes(*bytes) : "";
    }
    case Cell::kCount: {
      const auto found = row.find(column.field);
      return found != row.end() && found->is_array() ? std::to_string(found->size()) : "";
    }
  }
  return "";
}

int PrintTable(Session& session, const CommandRow& row, const Json& rows) {
  if (session.json()) {
    session.PrintJson(rows);
    return kExitOk;
  }
  std::vector<std::string> headings;
  for (const Column& column : row.columns) headings.emplace_back(column.heading);
  std::vector<std::vector<std::string>> cells;
  for (const Json& entry : rows) {
    cells.emplace_back();
    for (const Column& column : row.columns) cells.back().push_back(CellOf(entry, column));
  }
  session.Print(FormatTable(headings, cells));
  return kExitOk;
}

void Describe(const Json& value, const std::string& path,
              std::vector<std::pair<std::string, std::string>>* lines) {
  if (value.is_object()) {
    for (const auto& [key, part] : value.items())
      Describe(part, path.empty() ? key : path + "." + key, lines);
    return;
  }
  const bool nested = value.is_array() && !value.empty() && value.front().is_structured();
  if (nested) {
    for (size_t i = 0; i < value.size(); ++i)
      Describe(value[i], path + "[" + std::to_string(i) + "]", lines);
    return;
  }
  const Json holder = {{"x", value}};
  if (std::string text = TextAt(holder, "x"); !text.empty())
    lines->emplace_back(path, std::move(text));
}

struct Call {
  std::string path;
  Json body;  // null: none
};

absl::StatusOr<Call> CallOf(const CommandRow& row, const Typed& typed) {
  Json fields = Json::object();
  const std::string path = row.path;
  for (const auto& [name, value] : typed.arguments) {
    if (path.find("{" + name + "}") == std::string::npos) fields[name] = value;
  }
  for (const Flag& flag : row.flags) {
    const auto found = typed.flags.find(flag.field);
    if (found == typed.flags.end() || found->second.empty()) continue;
    ASSIGN_OR_RETURN(fields[flag.field], ValueOf(flag, found->second));
  }
  Call call;
  call.path = FillPath(path, typed.arguments);
  if (HasBody(row)) {
    call.body = std::move(fields);
  } else {
    call.path += QueryOf(path, fields);
  }
  return call;
}

}  // namespace

std::string FillPath(const std::string& path, const std::map<std::string, std::string>& values) {
  std::string out;
  for (size_t at = 0; at < path.size();) {
    const size_t open = path.find('{', at);
    const size_t close = open == std::string::npos ? open : path.find('}', open);
    if (close == std::string::npos) return out + path.substr(at);
    out += path.substr(at, open - at);
    const auto found = values.find(path.substr(open + 1, close - open - 1));
    if (found != values.end()) out += Segment(found->second);
    at = close + 1;
  }
  return out;
}

std::string DescribeRow(const Json& row) {
  std::vector<std::pair<std::string, std::string>> lines;
  Describe(row, "", &lines);
  size_t width = 0;
  for (const auto& [name, value] : lines) width = std::max(width, name.size());
  std::string out;
  for (const auto& [name, value] : lines)
    out += Printable(name) + std::string(width - name.size() + 2, ' ') + Printable(value) + "\n";
  return out;
}

int RunCommand(Session& session, const CommandRow& row, const Typed& typed) {
  const auto call = CallOf(row, typed);
  if (!call.ok()) {
    session.Fail(call.status());
    return kExitUsage;
  }
  auto answer = row.show == Show::kTable
                    ? session.api().List(call->path)
                    : session.api().Call(row.method, call->path, call->body, kTimeout);
  if (!answer.ok()) return session.Fail(answer.status());
  if (!row.columns.empty() && answer->is_array()) return PrintTable(session, row, *answer);
  if (session.json() || row.show == Show::kRawJson) {
    session.PrintJson(*answer);
  } else {
    session.Print(DescribeRow(*answer));
  }
  return kExitOk;
}

}  // namespace bunker::ctl
