#include "agent/bake/path_table.h"

#include <algorithm>
#include <cstring>

#include "common/base/converters.h"

namespace bunker::agent {

namespace {
constexpr size_t kArenaBytes = 256 << 10;
}

PathTable::PathTable() {
  nodes_.push_back(Node{kRootPath, std::string_view()});
}

std::string_view PathTable::Keep(std::string_view name) {
  if (name.size() > arena_left_) {
    arena_left_ = std::max(kArenaBytes, name.size());
    arena_.push_back(std::make_unique<char[]>(arena_left_));
    arena_next_ = arena_.back().get();
  }
  std::memcpy(arena_next_, name.data(), name.size());
  const std::string_view kept(arena_next_, name.size());
  arena_next_ += name.size();
  arena_left_ -= name.size();
  return kept;
}

PathId PathTable::Intern(PathId parent, std::string_view name) {
  const auto found = children_.find(std::make_pair(parent, ToAbsl(name)));
  if (found != children_.end()) return found->second;
  const std::string_view kept = Keep(name);
  const PathId id = static_cast<PathId>(nodes_.size());
  nodes_.push_back(Node{parent, kept});
  children_.emplace(std::make_pair(parent, ToAbsl(kept)), id);
  return id;
}

PathId PathTable::Intern(const std::vector<std::string_view>& components) {
  PathId id = kRootPath;
  for (std::string_view name : components) id = Intern(id, name);
  return id;
}

void PathTable::Components(PathId id, std::vector<std::string_view>* out) const {
  out->clear();
  for (; id != kRootPath; id = nodes_[id].parent) out->push_back(nodes_[id].name);
  std::reverse(out->begin(), out->end());
}

std::string PathTable::Text(PathId id) const {
  std::vector<std::string_view> components;
  Components(id, &components);
  std::string text;
  for (std::string_view name : components) {
    if (!text.empty()) text += '/';
    text += name;
  }
  return text.empty() ? "/" : text;
}

bool PathTable::LooksHidden(PathId id, int layer) const {
  if (nodes_[id].link_target) return false;
  if (nodes_[id].replaced_by > layer) return true;
  while (id != kRootPath) {
    id = nodes_[id].parent;
    if (nodes_[id].hidden_below_by > layer) return true;
  }
  return false;
}

std::vector<std::string_view> CleanComponents(std::string_view path) {
  std::vector<std::string_view> components;
  size_t start = 0;
  while (start <= path.size()) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view part = path.substr(start, end - start);
    start = end + 1;
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      components.push_back(part);
    } else if (!components.empty()) {
      components.pop_back();
    }
  }
  return components;
}

}  // namespace bunker::agent
