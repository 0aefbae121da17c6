#include "agent/scan/text_databases.h"

#include <utility>

#include "agent/scan/scan_limits.h"
#include "common/oci/json_guard.h"
#include "nlohmann/json.hpp"

namespace bunker::agent {
namespace {

using scan::v1::Package;

std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  text->remove_prefix(end == text->npos ? text->size() : end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text[0] == ' ' || text[0] == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool SameWord(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const char left = a[i] >= 'A' && a[i] <= 'Z' ? static_cast<char>(a[i] + 32) : a[i];
    const char right = b[i] >= 'A' && b[i] <= 'Z' ? static_cast<char>(b[i] + 32) : b[i];
    if (left != right) return false;
  }
  return true;
}

// "Name: value"; false for lines that go on from the one before, and for what is no field.
bool SplitField(std::string_view line, std::string_view* name, std::string_view* value) {
  if (line.empty() || line[0] == ' ' || line[0] == '\t') return false;
  const size_t colon = line.find(':');
  if (colon == line.npos) return false;
  *name = Trimmed(line.substr(0, colon));
  *value = Trimmed(line.substr(colon + 1));
  return true;
}

struct Stanza {
  std::string_view package, version, arch, status, source;
  bool any = false;
};

// "foo (1.2-3)": the source's own version where it differs from the binary's.
void SetSource(std::string_view source, Package* package) {
  const size_t space = source.find(' ');
  package->set_source_name(std::string(source.substr(0, space)));
  if (space == source.npos) return;
  std::string_view version = Trimmed(source.substr(space + 1));
  if (version.size() > 2 && version.front() == '(' && version.back() == ')')
    package->set_source_version(std::string(version.substr(1, version.size() - 2)));
}

// "install ok installed": the last word. What was removed and left its settings is not there;
// what is half there may be.
bool IsThere(std::string_view status) {
  const size_t space = status.rfind(' ');
  const std::string_view state = space == status.npos ? status : status.substr(space + 1);
  return state != "config-files" && state != "not-installed";
}

void AddStanza(const Stanza& stanza, bool installed_without_status, PackageList* list) {
  if (!stanza.any) return;
  if (stanza.status.empty() ? !installed_without_status : !IsThere(stanza.status)) return;
  Package package;
  package.set_kind(Package::DEB);
  package.set_name(std::string(stanza.package));
  package.set_version(std::string(stanza.version));
  package.set_arch(std::string(stanza.arch));
  if (!stanza.source.empty()) SetSource(stanza.source, &package);
  list->Add(std::move(package));
}

}  // namespace

void ReadDpkgStatus(std::string_view text, bool installed_without_status, PackageList* list) {
  Stanza stanza;
  while (!text.empty()) {
    const std::string_view line = TakeLine(&text);
    if (Trimmed(line).empty()) {
      AddStanza(stanza, installed_without_status, list);
      stanza = Stanza();
      continue;
    }
    std::string_view name, value;
    if (!SplitField(line, &name, &value)) continue;
    stanza.any = true;
    if (SameWord(name, "Package")) stanza.package = value;
    if (SameWord(name, "Version")) stanza.version = value;
    if (SameWord(name, "Architecture")) stanza.arch = value;
    if (SameWord(name, "Status")) stanza.status = value;
    if (SameWord(name, "Source")) stanza.source = value;
  }
  AddStanza(stanza, installed_without_status, list);
}

void ReadDpkgPaths(std::string_view text, PackageList* list) {
  while (!text.empty()) list->Own(TakeLine(&text));
}

void ReadApkInstalled(std::string_view text, PackageList* list) {
  Package package;
  bool any = false;
  std::string folder;
  const auto add = [&] {
    if (any) list->Add(std::move(package));
    package = Package();
    package.set_kind(Package::APK);
    any = false;
    folder.clear();
  };
  add();
  while (!text.empty()) {
    const std::string_view line = TakeLine(&text);
    if (line.empty()) {
      add();
      continue;
    }
    if (line.size() < 2 || line[1] != ':') continue;
    const std::string value(line.substr(2));
    any = true;
    switch (line[0]) {
      case 'P':
        package.set_name(value);
        break;
      case 'V':
        package.set_version(value);
        break;
      case 'A':
        package.set_arch(value);
        break;
      case 'o':
        package.set_source_name(value);
        break;
      case 'F':
        folder = value;
        break;
      case 'R':
        list->Own(folder + "/" + value);
        break;
      default:
        break;
    }
  }
  add();
}

scan::v1::Distribution ReadOsRelease(std::string_view text) {
  scan::v1::Distribution distribution;
  while (!text.empty()) {
    const std::string_view line = TakeLine(&text);
    const size_t equals = line.find('=');
    if (equals == line.npos) continue;
    std::string_view value = Trimmed(line.substr(equals + 1));
    if (value.size() > 1 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0])
      value = value.substr(1, value.size() - 2);
    if (value.size() > 64) continue;
    std::string plain;
    for (const char c : value) {
      if (c > ' ' || (c == ' ' && !plain.empty())) plain += c;
    }
    const std::string_view key = Trimmed(line.substr(0, equals));
    if (key == "ID") distribution.set_id(plain);
    if (key == "VERSION_ID") distribution.set_version_id(plain);
    if (key == "PRETTY_NAME") distribution.set_name(plain);
  }
  return distribution;
}

void ReadPythonMetadata(std::string_view text, const std::string& origin, PackageList* list) {
  Package package;
  package.set_kind(Package::PYPI);
  while (!text.empty()) {
    const std::string_view line = TakeLine(&text);
    if (line.empty()) break;  // the description follows
    std::string_view name, value;
    if (!SplitField(line, &name, &value)) continue;
    if (SameWord(name, "Name") && package.name().empty()) package.set_name(std::string(value));
    if (SameWord(name, "Version") && package.version().empty())
      package.set_version(std::string(value));
  }
  if (package.name().empty() || package.version().empty()) {
    list->AddProblem(origin + " names no package and version");
    return;
  }
  list->Add(std::move(package));
}

void ReadNpmPackage(std::string_view text, const std::string& origin, PackageList* list) {
  const auto parsed = oci::ParseObject(text, "package.json");
  if (!parsed.ok()) {
    list->AddProblem(origin + " can't be read: " + std::string(parsed.status().message()));
    return;
  }
  Package package;
  package.set_kind(Package::NPM);
  package.set_name(oci::StringOf(*parsed, "name"));
  package.set_version(oci::StringOf(*parsed, "version"));
  // Folders of a package's own, such as a marker of the module type, have neither.
  if (package.name().empty() || package.version().empty()) return;
  list->Add(std::move(package));
}

}  // namespace bunker::agent
