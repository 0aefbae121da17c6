// What a stack of layers means, in the most naive way there is: a map from path to entry, and the
// members applied one after the other from the bottom up, as an unpack into a folder does it. Knows
// nothing of the bake; slow and obvious.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/agent_bake/tar_builder.h"

namespace bunker::agent::test {

struct ModelFile {
  char type = 'f';
  std::string content;  // or a link's target
  uint32_t mode = 0;
  uint64_t uid = 0;
  uint64_t gid = 0;
  int64_t mtime = 0;
  std::map<std::string, std::string> xattrs = {};
};

class NaiveModel {
 public:
  NaiveModel() { paths_[""] = std::make_shared<ModelFile>(ModelFile{'d', "", 0755, 0}); }

  // False where the stack has no meaning (a file in place of a folder, a link to nothing, …).
  bool ApplyLayer(const std::vector<TarEntry>& members) {
    touched_.clear();
    for (const TarEntry& member : members) {
      if (!Apply(member)) return false;
    }
    return true;
  }
  const std::map<std::string, std::shared_ptr<ModelFile>>& paths() const { return paths_; }

 private:
  static std::string Parent(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
  }
  static std::string Name(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
  }
  static std::string Join(const std::string& folder, const std::string& name) {
    return folder.empty() ? name : folder + "/" + name;
  }
  // "a/./b/../c" → "a/c", by spelling alone.
  static std::string Clean(const std::string& path) {
    std::string clean;
    std::string part;
    for (const char c : path + "/") {
      if (c != '/') {
        part += c;
        continue;
      }
      if (part == "..") {
        clean = Parent(clean);
      } else if (!part.empty() && part != ".") {
        clean = Join(clean, part);
      }
      part.clear();
    }
    return clean;
  }
  static ModelFile Describe(const TarEntry& member) {
    const char type = member.type == '5' ? 'd' : member.type == '2' ? 'l' : 'f';
    ModelFile file{type,
                   type == 'l' ? member.link : member.data,
                   type == 'l' ? 0777 : member.mode,
                   member.uid,
                   member.gid,
                   member.mtime};
    const std::string prefix = "SCHILY.xattr.";
    for (const auto& [key, value] : member.pax) {
      if (key.rfind(prefix, 0) == 0) file.xattrs[key.substr(prefix.size())] = value;
    }
    return file;
  }
  ModelFile* Find(const std::string& path) {
    const auto found = paths_.find(path);
    return found == paths_.end() ? nullptr : found->second.get();
  }
  void RemoveAll(const std::string& path) {
    for (auto it = paths_.begin(); it != paths_.end();) {
      const bool inside = it->first == path || it->first.rfind(path + "/", 0) == 0;
      it = inside ? paths_.erase(it) : std::next(it);
    }
  }
  // The real folder a path leads to, links followed; nothing where they loop.
  std::optional<std::string> Resolve(const std::string& path) {
    std::string real;
    std::string rest = path;
    int followed = 0;
    while (!rest.empty()) {
      const size_t slash = rest.find('/');
      const std::string part = rest.substr(0, slash);
      rest = slash == std::string::npos ? "" : rest.substr(slash + 1);
      if (part.empty() || part == ".") continue;
      if (part == "..") {
        real = Parent(real);
        continue;
      }
      const ModelFile* file = Find(Join(real, part));
      if (file == nullptr || file->type != 'l') {
        real = Join(real, part);
        continue;
      }
      if (++followed > 255) return std::nullopt;
      if (file->content[0] == '/') real.clear();
      rest = file->content + "/" + rest;
    }
    return real;
  }
  bool MakeFolders(const std::string& path) {
    if (path.empty()) return true;
    if (!MakeFolders(Parent(path))) return false;
    if (const ModelFile* file = Find(path)) return file->type == 'd';
    paths_[path] = std::make_shared<ModelFile>(ModelFile{'d', "", 0755, 0});
    return true;
  }
  void Touch(std::string path) {
    for (;; path = Parent(path)) {
      touched_.insert(path);
      if (path.empty()) return;
    }
  }
  void Whiteout(const std::string& top, bool itself) {
    std::vector<std::string> doomed;
    for (const auto& [path, file] : paths_) {
      const bool beneath = top.empty() ? !path.empty() : path.rfind(top + "/", 0) == 0;
      if (((itself && path == top) || beneath) && touched_.count(path) == 0) doomed.push_back(path);
    }
    for (const std::string& path : doomed) RemoveAll(path);
  }
  bool Apply(const TarEntry& member) {
    const std::string path = Clean(member.name);
    if (path.empty()) {
      if (member.type != '5') return false;
      *paths_[""] = Describe(member);
      return true;
    }
    const std::optional<std::string> folder = Resolve(Parent(path));
    if (!folder) return false;
    const std::string name = Name(path);
    if (name == ".wh..wh..opq") {
      Whiteout(*folder, false);
      return true;
    }
    if (name.rfind(".wh.", 0) == 0) {
      Whiteout(Join(*folder, name.substr(4)), true);
      return true;
    }
    if (!MakeFolders(*folder)) return false;
    return Place(member, Join(*folder, name));
  }
  bool Place(const TarEntry& member, const std::string& real) {
    const ModelFile* existing = Find(real);
    if (member.type == '5' && existing != nullptr && existing->type == 'd') {
      *paths_[real] = Describe(member);
      Touch(real);
      return true;
    }
    RemoveAll(real);
    if (member.type == '1') {
      const std::string target = Clean(member.link);
      const std::optional<std::string> folder = Resolve(Parent(target));
      if (!folder) return false;
      const auto found = paths_.find(Join(*folder, Name(target)));
      if (target.empty() || found == paths_.end() || found->second->type == 'd') return false;
      paths_[real] = found->second;
    } else {
      paths_[real] = std::make_shared<ModelFile>(Describe(member));
    }
    Touch(real);
    return true;
  }

  std::map<std::string, std::shared_ptr<ModelFile>> paths_;
  std::set<std::string> touched_;
};

}  // namespace bunker::agent::test
