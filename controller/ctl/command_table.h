// The commands that are one call of the API and one way to print its answer: a table of them, and
// what runs a row of it.
//
// Not thread-safe.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "controller/ctl/session.h"
#include "nlohmann/json_fwd.hpp"

namespace bunker::ctl {

// How a flag's text becomes JSON.
enum class Kind {
  kText,
  kNumber,
  kBool,   // true or false
  kFlag,   // true where it is given
  kList,   // a,b,c or repeated
  kPairs,  // KEY=VALUE, repeated
};

// A flag of a command, and the field of the body or the query that it sets.
struct Flag {
  const char* name;   // "--expires-at"
  const char* field;  // "expires_at"
  Kind kind;
  const char* help;
};

enum class Cell { kText, kBytes, kCount, kAge };

struct Column {
  const char* heading;
  const char* field;  // a path: "cache_summary.ready"
  Cell cell = Cell::kText;
};

enum class Show {
  kTable,   // a list, all pages
  kWhole,   // a list that has no pages
  kRow,     // one row: every field a line
  kRawJson  // a document, as it is
};

struct CommandRow {
  const char* noun;
  const char* verb;
  const char* help;
  const char* method;
  const char* path;  // "/images/{image}/scan" below the module; "/v1/…" as it is
  std::vector<const char*> arguments = {};  // each fills {name} in the path, else a body's field
  std::vector<Flag> flags = {};
  Show show = Show::kRow;
  std::vector<Column> columns = {};  // of a table
};

const std::vector<CommandRow>& CommandTable();
// What a noun is, for the help.
const char* NounHelp(const std::string& noun);

// What the user typed for one row.
struct Typed {
  std::map<std::string, std::string> arguments;
  std::map<std::string, std::vector<std::string>> flags;  // by field; a kFlag has one, ""
};

// Calls and prints; the exit code.
int RunCommand(Session& session, const CommandRow& row, const Typed& typed);

// `text` with {names} replaced, each as one path segment.
std::string FillPath(const std::string& path, const std::map<std::string, std::string>& values);

// One row as lines of "name  value", nested fields as "a.b"; what is null or empty is left out.
std::string DescribeRow(const nlohmann::json& row);

}  // namespace bunker::ctl
