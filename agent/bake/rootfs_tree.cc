#include "agent/bake/rootfs_tree.h"

#include <algorithm>

#include "agent/bake/bake_error.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

// As the kernel's own limit times a margin: a loop of links ends here.
constexpr int kMaxLinksFollowed = 255;
constexpr uint32_t kMaxHardLinks = 65'000;
// Chains of hard links whose targets come later in the stream.
constexpr int kMaxPendingPasses = 64;

std::vector<std::string_view> Split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (end > 0) parts.push_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return parts;
}

}  // namespace

RootfsTree::RootfsTree(const PathTable* paths) : paths_(paths) {
  files_.push_back(TreeFile{nullptr, 1, true});
  nodes_.emplace_back();
}

absl::Status RootfsTree::Refuse(const Member& member, std::string_view why) const {
  return LayerUnsupported(paths_->Text(member.path), why);
}

NodeId RootfsTree::Child(NodeId parent, std::string_view name) const {
  const auto found = children_.find(std::make_pair(parent, ToAbsl(name)));
  return found == children_.end() ? kNoNode : found->second;
}

bool RootfsTree::IsSymlink(NodeId id) const {
  const Member* member = files_[nodes_[id].file].member;
  return member != nullptr && member->type == MemberType::kSymlink;
}

NodeId RootfsTree::Add(NodeId parent, std::string_view name, FileId file) {
  NodeId id;
  if (free_nodes_.empty()) {
    id = static_cast<NodeId>(nodes_.size());
    nodes_.emplace_back();
  } else {
    id = free_nodes_.back();
    free_nodes_.pop_back();
    nodes_[id] = TreeNode();
  }
  TreeNode& node = nodes_[id];
  node.name = name;
  node.parent = parent;
  node.file = file;
  node.next_sibling = nodes_[parent].first_child;
  if (node.next_sibling != kNoNode) nodes_[node.next_sibling].previous_sibling = id;
  nodes_[parent].first_child = id;
  children_.emplace(std::make_pair(parent, ToAbsl(name)), id);
  ++files_[file].links;
  return id;
}

// Takes one node without children out of the tree.
void RootfsTree::Unlink(NodeId id) {
  TreeNode& node = nodes_[id];
  if (node.previous_sibling != kNoNode) {
    nodes_[node.previous_sibling].next_sibling = node.next_sibling;
  } else {
    nodes_[node.parent].first_child = node.next_sibling;
  }
  if (node.next_sibling != kNoNode) {
    nodes_[node.next_sibling].previous_sibling = node.previous_sibling;
  }
  children_.erase(std::make_pair(node.parent, ToAbsl(node.name)));
  --files_[node.file].links;
  free_nodes_.push_back(id);
}

void RootfsTree::Remove(NodeId top) {
  // Down to a leaf, take it away, up again: no recursion, for trees can be deep.
  NodeId id = top;
  for (;;) {
    if (nodes_[id].first_child != kNoNode) {
      id = nodes_[id].first_child;
      continue;
    }
    const NodeId parent = nodes_[id].parent;
    Unlink(id);
    if (id == top) return;
    id = parent;
  }
}

void RootfsTree::Touch(NodeId id) {
  while (nodes_[id].touched_by != layer_) {
    nodes_[id].touched_by = layer_;
    if (id == kRootNode) return;
    id = nodes_[id].parent;
  }
}

absl::Status RootfsTree::Follow(const std::vector<std::string_view>& components,
                                const Member& member, Walk* walk) const {
  walk->clear();
  std::vector<std::string_view> todo(components.rbegin(), components.rend());
  int followed = 0;
  while (!todo.empty()) {
    const std::string_view part = todo.back();
    todo.pop_back();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!walk->empty()) walk->pop_back();
      continue;
    }
    const NodeId parent = walk->empty() ? kRootNode : walk->back().second;
    const NodeId child = parent == kNoNode ? kNoNode : Child(parent, part);
    if (child == kNoNode || !IsSymlink(child)) {
      if (part.size() > kMaxNameBytes) return Refuse(member, "a link leads to an overlong name");
      walk->emplace_back(part, child);
      continue;
    }
    if (++followed > kMaxLinksFollowed) {
      return Refuse(member, "its folder is a loop of symbolic links");
    }
    const std::string_view target = files_[nodes_[child].file].member->link;
    if (target.front() == '/') walk->clear();
    const std::vector<std::string_view> parts = Split(target);
    todo.insert(todo.end(), parts.rbegin(), parts.rend());
    if (todo.size() > kMaxPathBytes) return Refuse(member, "its folder's links are too long");
  }
  return absl::OkStatus();
}

absl::StatusOr<NodeId> RootfsTree::MakeFolders(const Walk& walk, const Member& member) {
  NodeId parent = kRootNode;
  for (const auto& [name, known] : walk) {
    NodeId child = known;
    if (child == kNoNode) child = Child(parent, name);
    if (child == kNoNode) {
      files_.push_back(TreeFile{nullptr, 0, true});
      child = Add(parent, name, static_cast<FileId>(files_.size() - 1));
    } else if (!IsDirectory(child)) {
      return Refuse(member, absl::StrCat("its folder '", Printable(Text(child)),
                                         "' is a file in this or a lower layer"));
    }
    parent = child;
  }
  return parent;
}

// Removes what lower layers left, keeps what this layer made.
void RootfsTree::ApplyWhiteout(NodeId target, bool itself) {
  if (itself && nodes_[target].touched_by != layer_) {
    Remove(target);
    return;
  }
  std::vector<NodeId> todo = {target};
  while (!todo.empty()) {
    const NodeId id = todo.back();
    todo.pop_back();
    for (NodeId child = nodes_[id].first_child; child != kNoNode;) {
      const NodeId next = nodes_[child].next_sibling;
      if (nodes_[child].touched_by != layer_) {
        Remove(child);
      } else {
        todo.push_back(child);
      }
      child = next;
    }
  }
}

absl::Status RootfsTree::ApplyRoot(const Member& member) {
  if (member.type == MemberType::kOpaque) {
    ApplyWhiteout(kRootNode, /*itself=*/false);
    return absl::OkStatus();
  }
  if (member.type != MemberType::kDirectory) {
    return Refuse(member, "the root of the image must be a directory");
  }
  files_[nodes_[kRootNode].file].member = &member;
  return absl::OkStatus();
}

absl::Status RootfsTree::ApplyLink(const Member& member, NodeId parent, std::string_view name,
                                   bool* done) {
  std::vector<std::string_view> components = CleanComponents(member.link);
  *done = true;
  if (components.empty()) return Refuse(member, "a hard link to the root directory");
  const std::string_view last = components.back();
  components.pop_back();
  Walk walk;
  RETURN_IF_ERROR(Follow(components, member, &walk));
  const NodeId folder = walk.empty() ? kRootNode : walk.back().second;
  const NodeId target = folder == kNoNode ? kNoNode : Child(folder, last);
  if (target == kNoNode) {
    *done = false;
    return absl::OkStatus();
  }
  if (IsDirectory(target)) return Refuse(member, "a hard link to a directory");
  const FileId file = nodes_[target].file;
  if (files_[file].links >= kMaxHardLinks) {
    return Refuse(member, "more than 65000 hard links to one file");
  }
  Touch(Add(parent, name, file));
  return absl::OkStatus();
}

absl::Status RootfsTree::Apply(const Member& member) {
  if (member.path == kRootPath) return ApplyRoot(member);
  std::vector<std::string_view> components;
  paths_->Components(member.path, &components);
  const bool opaque = member.type == MemberType::kOpaque;
  const std::string_view name = components.back();
  if (!opaque) components.pop_back();
  Walk walk;
  RETURN_IF_ERROR(Follow(components, member, &walk));
  if (opaque || member.type == MemberType::kWhiteout) {
    const NodeId folder = walk.empty() ? kRootNode : walk.back().second;
    if (folder == kNoNode) return absl::OkStatus();
    const NodeId target = opaque ? folder : Child(folder, name);
    if (target != kNoNode) ApplyWhiteout(target, /*itself=*/!opaque);
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const NodeId parent, MakeFolders(walk, member));
  const NodeId existing = Child(parent, name);
  if (member.type == MemberType::kDirectory && existing != kNoNode && IsDirectory(existing)) {
    files_[nodes_[existing].file].member = &member;
    Touch(existing);
    return absl::OkStatus();
  }
  if (existing != kNoNode) Remove(existing);
  Touch(parent);
  if (member.type == MemberType::kHardLink) {
    bool done = false;
    RETURN_IF_ERROR(ApplyLink(member, parent, name, &done));
    if (!done) pending_links_.push_back(&member);
    return absl::OkStatus();
  }
  files_.push_back(TreeFile{&member, 0, member.type == MemberType::kDirectory});
  Touch(Add(parent, name, static_cast<FileId>(files_.size() - 1)));
  return absl::OkStatus();
}

// Links whose target comes later in the same layer.
absl::Status RootfsTree::ResolvePending() {
  for (int pass = 0; pass < kMaxPendingPasses && !pending_links_.empty(); ++pass) {
    std::vector<const Member*> still;
    for (const Member* member : pending_links_) {
      std::vector<std::string_view> components;
      paths_->Components(member->path, &components);
      const std::string_view name = components.back();
      components.pop_back();
      Walk walk;
      RETURN_IF_ERROR(Follow(components, *member, &walk));
      ASSIGN_OR_RETURN(const NodeId parent, MakeFolders(walk, *member));
      if (Child(parent, name) != kNoNode) continue;  // a later member took the place
      bool done = false;
      RETURN_IF_ERROR(ApplyLink(*member, parent, name, &done));
      if (!done) still.push_back(member);
    }
    if (still.size() == pending_links_.size()) break;
    pending_links_ = std::move(still);
  }
  if (pending_links_.empty()) return absl::OkStatus();
  const Member* member = pending_links_.front();
  return Refuse(*member, absl::StrCat("a hard link to '", Printable(member->link),
                                      "', which is in no layer"));
}

absl::Status RootfsTree::ApplyLayer(const std::vector<Member>& members) {
  pending_links_.clear();
  for (const Member& member : members) RETURN_IF_ERROR(Apply(member));
  RETURN_IF_ERROR(ResolvePending());
  ++layer_;
  return absl::OkStatus();
}

std::vector<NodeId> RootfsTree::SortedChildren(NodeId id) const {
  std::vector<NodeId> children;
  for (NodeId child = nodes_[id].first_child; child != kNoNode;
       child = nodes_[child].next_sibling) {
    children.push_back(child);
  }
  std::sort(children.begin(), children.end(),
            [this](NodeId a, NodeId b) { return nodes_[a].name < nodes_[b].name; });
  return children;
}

std::string RootfsTree::Text(NodeId id) const {
  std::string text;
  for (; id != kRootNode; id = nodes_[id].parent) {
    text.insert(0, nodes_[id].name);
    text.insert(0, 1, '/');
  }
  return text.empty() ? "/" : text;
}

}  // namespace bunker::agent
