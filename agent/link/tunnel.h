// The stream of one command, question or operation on files to the controller, opened by this
// agent when asked to.
//
// Everything is on the agent's loop: calls and events. Not thread-safe.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "agent/link/client_stream.h"
#include "agent/link/loop_gate.h"
#include "bunker/link/v1/agent_link.grpc.pb.h"

namespace bunker::agent {

// What comes from the controller. Its owner keeps it alive until OnClosed().
class TunnelHandler {
 public:
  virtual ~TunnelHandler() = default;
  // First, one of these five, once.
  virtual void OnExec(const link::v1::ExecStart& start) = 0;
  virtual void OnProcess(const link::v1::ProcessCall&) {}
  virtual void OnAttach(const link::v1::ProcessAttach&) {}
  virtual void OnLog(const link::v1::LogRead&) {}
  // An operation on files. Its data, if any, comes as stdin does.
  virtual void OnFile(const link::v1::FileStart&) {}
  // In place of OnStdinClose(): all data came, so many bytes.
  virtual void OnFileCommit(uint64_t) {}
  // The terminal has another size.
  virtual void OnResize(const link::v1::TerminalSize&) {}
  // At most 256 KiB. The next one comes after Tunnel::StdinTaken().
  virtual void OnStdin(std::string data) = 0;
  // After the last OnStdin().
  virtual void OnStdinClose() = 0;
  // End the process tree; SendExit() is still expected.
  virtual void OnCancel() = 0;
  // SendOutput() has room again.
  virtual void OnWritable() = 0;
  // Last, once, also after SendExit() and SendError(). Where neither was sent, nobody waits for
  // the result any more: end the process tree.
  virtual void OnClosed(const absl::Status& why) = 0;
};

class Tunnel : public std::enable_shared_from_this<Tunnel> {
 public:
  // Output beyond this many queued bytes: the handler should wait.
  static constexpr size_t kHighWaterBytes = 512 * 1024;
  static constexpr size_t kMaxOutputBytes = 64 * 1024;  // in one frame; more is split
  static constexpr size_t kMaxFileBytes = 128 * 1024;   // the same of a file's data

  // Opens the stream and names the tunnel; events come once Serve() was called, and until `gate`
  // is shut. `channel` is the link's. The stream ends by itself at `deadline` from now.
  static std::shared_ptr<Tunnel> Open(std::shared_ptr<LoopGate> gate,
                                      const std::shared_ptr<grpc::Channel>& channel,
                                      const std::string& credential, const std::string& tunnel_id,
                                      absl::Duration deadline);

  // Asks `choose` for the handler, which it gives by Serve(), when the first frame has come or the
  // stream has ended without one.
  using Choose = std::function<void(const link::v1::ControllerTunnelFrame& first)>;
  void ServeBy(Choose choose);
  // Events go to `handler` from now on. Once, and instead of it SendError() alone is fine.
  void Serve(TunnelHandler* handler);

  // False: the queue is above its mark (the data is taken all the same): wait for OnWritable().
  bool SendOutput(bool is_stderr, std::string_view data);
  // News in the order of the output.
  void SendStarted(uint32_t pid);
  void SendGap(uint64_t bytes);
  void SendExit(const link::v1::ExecExit& exit);  // last
  void SendFileHead(link::v1::FileHead head);
  // As SendOutput(). REQUIRES: at most kMaxFileBytes.
  bool SendFileData(std::string data);
  void SendFileEnd(link::v1::FileEnd end);        // last
  void SendError(const absl::Status& error);      // last
  void SendProcess(link::v1::ProcessAnswer answer);  // last
  void SendLogEnd(uint64_t next_offset);          // last
  void StdinTaken();

  // Ends the stream without a result.
  void Cancel();

 private:
  using Stream = ClientStream<link::v1::AgentTunnelFrame, link::v1::ControllerTunnelFrame>;

  Tunnel() = default;

  // Sends what SendOutput() and SendFileData() have gathered while the stream is not busy; then the
  // last frame.
  void FlushOutput();
  void Gather(link::v1::AgentTunnelFrame frame);
  bool BelowMark();
  void SendLast(link::v1::AgentTunnelFrame frame);
  void OnFrame(link::v1::ControllerTunnelFrame frame);
  void OnWritten();
  void OnDone(const absl::Status& status);
  void Deliver();
  void ReadOn();

  std::unique_ptr<link::v1::AgentLink::Stub> stub_;
  std::shared_ptr<Stream> stream_;
  TunnelHandler* handler_ = nullptr;
  Choose choose_;  // where there is no handler yet

  // Frames that the handler has not taken yet. Reading pauses above kMaxWaitingBytes.
  std::deque<link::v1::ControllerTunnelFrame> waiting_;
  size_t waiting_bytes_ = 0;
  std::deque<link::v1::AgentTunnelFrame> gathered_;  // not yet in the stream's queue, in order
  size_t gathered_bytes_ = 0;
  std::optional<link::v1::AgentTunnelFrame> last_;  // goes once nothing is gathered any more
  bool stdin_pending_ = false;  // the handler works on a chunk
  bool read_paused_ = false;
  bool above_mark_ = false;
  bool result_sent_ = false;
  bool closed_ = false;
  absl::Status why_closed_;
};

}  // namespace bunker::agent
