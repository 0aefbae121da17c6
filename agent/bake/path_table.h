// Every path that the layers mention, each component stored once, with what the upper layers said
// about it. Paths here are spellings: no symbolic link is resolved.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace bunker::agent {

using PathId = uint32_t;
inline constexpr PathId kRootPath = 0;

inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxNameBytes = 255;

class PathTable {
 public:
  PathTable();

  // The child `name` of `parent`, made where it is new.
  PathId Intern(PathId parent, std::string_view name);
  // The path of cleaned components below the root.
  PathId Intern(const std::vector<std::string_view>& components);

  PathId parent(PathId id) const { return nodes_[id].parent; }
  std::string_view name(PathId id) const { return nodes_[id].name; }
  // The components from the root on; views live as long as the table.
  void Components(PathId id, std::vector<std::string_view>* out) const;
  std::string Text(PathId id) const;

  // Layer `layer` has something at the path (so a lower layer's is replaced) / hides all that lower
  // layers have beneath it / needs the lower layers' data at it for a hard link. Layers are told
  // from the top down; the first one stays.
  void MarkReplaced(PathId id, int layer) { SetOnce(&nodes_[id].replaced_by, layer); }
  void MarkHidesBelow(PathId id, int layer) { SetOnce(&nodes_[id].hidden_below_by, layer); }
  void MarkLinkTarget(PathId id) { nodes_[id].link_target = true; }

  // Whether what `layer` has at the path is hidden by a layer above, going by spellings alone. A
  // guess where symbolic links are about: it decides what is worth writing, never what is right.
  bool LooksHidden(PathId id, int layer) const;

 private:
  struct Node {
    PathId parent;
    std::string_view name;
    int16_t replaced_by = -1;
    int16_t hidden_below_by = -1;
    bool link_target = false;
  };
  static void SetOnce(int16_t* field, int layer) {
    if (*field < 0) *field = static_cast<int16_t>(layer);
  }
  std::string_view Keep(std::string_view name);

  std::deque<Node> nodes_;
  absl::flat_hash_map<std::pair<PathId, absl::string_view>, PathId> children_;
  std::vector<std::unique_ptr<char[]>> arena_;
  size_t arena_left_ = 0;
  char* arena_next_ = nullptr;
};

// Splits on '/', drops "" and ".", lets ".." take away what is before it and stop at the root.
std::vector<std::string_view> CleanComponents(std::string_view path);

}  // namespace bunker::agent
