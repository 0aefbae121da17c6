// The file tree that the layers make, member by member from the bottom layer up, exactly as an
// unpack into a folder would: symbolic links are followed where they stand at that moment, never
// out of the root. This is where it is decided what an image contains.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/bake/member.h"
#include "agent/bake/path_table.h"

namespace bunker::agent {

using NodeId = uint32_t;
using FileId = uint32_t;
inline constexpr NodeId kNoNode = 0xffffffff;
inline constexpr NodeId kRootNode = 0;

// What hard links share.
struct TreeFile {
  const Member* member = nullptr;  // null: a directory that no layer describes
  uint32_t links = 0;              // names that lead here
  bool is_directory = false;
};

struct TreeNode {
  std::string_view name;
  NodeId parent = kRootNode;
  NodeId first_child = kNoNode;
  NodeId next_sibling = kNoNode;
  NodeId previous_sibling = kNoNode;
  FileId file = 0;
  int touched_by = -1;  // the last layer that made this, or something beneath it
};

class RootfsTree {
 public:
  // `paths` and every member given to ApplyLayer() must outlive the tree.
  explicit RootfsTree(const PathTable* paths);

  // Applies the members of the next layer, bottom layer first. Errors: LAYER_UNSUPPORTED naming
  // the member that cannot be placed.
  absl::Status ApplyLayer(const std::vector<Member>& members);

  const TreeNode& node(NodeId id) const { return nodes_[id]; }
  const TreeFile& file(FileId id) const { return files_[id]; }
  const TreeFile& file_of(NodeId id) const { return files_[nodes_[id].file]; }
  size_t file_count() const { return files_.size(); }
  // The children in byte order of their names.
  std::vector<NodeId> SortedChildren(NodeId id) const;
  // kNoNode where there is none.
  NodeId Child(NodeId parent, std::string_view name) const;
  // "/a/b", for messages.
  std::string Text(NodeId id) const;

 private:
  // Where a path leads: one step per real directory below the root; a node of kNoNode is not there.
  using Walk = std::vector<std::pair<std::string_view, NodeId>>;

  absl::Status Apply(const Member& member);
  absl::Status Follow(const std::vector<std::string_view>& components, const Member& member,
                      Walk* walk) const;
  absl::StatusOr<NodeId> MakeFolders(const Walk& walk, const Member& member);
  absl::Status ApplyRoot(const Member& member);
  absl::Status ApplyLink(const Member& member, NodeId parent, std::string_view name, bool* done);
  absl::Status ResolvePending();
  void ApplyWhiteout(NodeId target, bool itself);
  NodeId Add(NodeId parent, std::string_view name, FileId file);
  void Remove(NodeId top);
  void Unlink(NodeId id);
  void Touch(NodeId id);
  bool IsSymlink(NodeId id) const;
  bool IsDirectory(NodeId id) const { return files_[nodes_[id].file].is_directory; }
  std::string_view NameOf(const Member& member) const { return paths_->name(member.path); }
  absl::Status Refuse(const Member& member, std::string_view why) const;

  const PathTable* const paths_;
  std::vector<TreeNode> nodes_;
  std::vector<TreeFile> files_;
  absl::flat_hash_map<std::pair<NodeId, absl::string_view>, NodeId> children_;
  std::vector<NodeId> free_nodes_;
  std::vector<const Member*> pending_links_;
  int layer_ = 0;
};

}  // namespace bunker::agent
