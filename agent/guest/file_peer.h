// The end that a file operation's child process has of its socket to PID 1, and how it ends.
//
// One packet is one message: a byte that says what it is, then its payload. Blocking: PID 1 takes
// no more than its host does, and that is what slows a reader or a writer down.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "agent/guest/fd.h"
#include "bunker/guest/v1/guest.pb.h"
#include "common/wire/frame.h"

namespace bunker::guest {

enum class FilePacket : char {
  kData = 'd',    // either way
  kCommit = 'c',  // to the child: FileCommit
  kHead = 'h',    // from the child: FileHead
  kEnd = 'e',     // from the child, last: FileEnd
};

// What becomes of an operation; DONE, or why not.
struct FileResult {
  v1::FileEnd::Kind kind = v1::FileEnd::DONE;
  std::string message;
  bool ok() const { return kind == v1::FileEnd::DONE; }
};

// errno as a result: "`what`: No such file or directory".
FileResult FileErrno(std::string_view what);
FileResult FileFailure(v1::FileEnd::Kind kind, std::string message);

class FilePeer {
 public:
  explicit FilePeer(Fd socket) : socket_(std::move(socket)) {}

  // False: PID 1 does not want it any more; clean up and end.
  bool SendHead(const v1::FileHead& head);
  bool SendData(std::string_view data);  // any size; cut into packets
  bool SendEnd(const v1::FileEnd& end);

  enum class Received { kData, kCommit, kGone };
  // The next packet; `data` is valid until the next call.
  Received Receive(std::string_view* data, v1::FileCommit* commit);

  // Whether PID 1 has given the operation up. For work that neither sends nor receives.
  bool Gone() const;
  int fd() const { return socket_.get(); }

 private:
  bool Send(FilePacket type, std::string_view payload);

  Fd socket_;
  char buffer_[wire::kMaxDataBytes];
};

// A row or an event as data has it: its length, then its bytes.
std::string LengthPrefixed(const std::string& message);

}  // namespace bunker::guest
