// One request's parser: the head first, then, by what the handler wants, a body in memory or one
// that goes through a buffer. Part of http_session; its files alone include this.
#pragma once

#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "controller/rest/http_session.h"

namespace bunker::controller {

class HttpSession::Parser {
 public:
  explicit Parser(const HttpLimits& limits) {
    head_.header_limit(static_cast<uint32_t>(limits.max_header_bytes));
    head_.body_limit(boost::none);
  }
  // Goes on with a body that is kept in memory.
  void KeepBody(const HttpLimits& limits) {
    body_.emplace(std::move(head_));
    body_->body_limit(limits.max_body_bytes);
    body_->eager(true);
  }

  boost::beast::http::request_parser<boost::beast::http::empty_body> head_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> body_;
};

// A body on its way to whoever calls ReadBody().
class HttpSession::Upload {
 public:
  Upload(Parser&& parser, std::shared_ptr<HttpSession> session)
      : parser_(std::move(parser.head_)), session_(std::move(session)) {
    parser_.body_limit(boost::none);
    parser_.eager(true);
  }

  boost::beast::http::request_parser<boost::beast::http::buffer_body> parser_;
  HttpExchange::BodyDone done_;  // set: somebody waits
  absl::Status failed_;
  // Sessions live by what they wait for, and while nobody asks for more there is nothing.
  const std::shared_ptr<HttpSession> session_;
};

// Without the body.
HttpRequest HeadOfRequest(const boost::beast::http::request_header<>& head,
                          const std::string& peer);

}  // namespace bunker::controller
