package main

// The configurations of the peers and of the backend, templates over serverParams.

const nginxConfig = `
daemon off;
pid {{.Dir}}/nginx.pid;
worker_processes {{.Cores}};
worker_rlimit_nofile 20000;
events { worker_connections 18000; }
http {
	access_log off;
	tcp_nodelay on;
	keepalive_timeout 300s;
	keepalive_requests 1000000000;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	upstream backend {
		server {{.Backend}};
		keepalive 256;
		keepalive_requests 1000000000;
		keepalive_timeout 300s;
	}
	upstream grpc {
		server {{.GRPC}};
		keepalive 256;
		keepalive_requests 1000000000;
		keepalive_timeout 300s;
	}
	server {
		listen {{.Listen}};
		listen {{.ListenTLS}} ssl http2;
		listen {{.ListenH2}} http2;
		ssl_certificate {{.Cert}};
		ssl_certificate_key {{.Key}};
		ssl_protocols TLSv1.2 TLSv1.3;
		http2_max_concurrent_streams 256;
		client_body_buffer_size 32k;
		location / {
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_pass http://backend;
		}
		location /bench.Bench/ {
			grpc_pass grpc://grpc;
		}
	}
}
`

const haproxyConfig = `
global
	nbthread {{.Cores}}
	maxconn 11000
	no strict-limits
	tune.h2.max-concurrent-streams 256
defaults
	mode http
	timeout connect 5s
	timeout client 300s
	timeout server 300s
	timeout http-keep-alive 300s
	http-reuse always
frontend front
	bind {{.Listen}}
	bind {{.ListenTLS}} ssl crt {{.CertKey}} alpn h2,http/1.1
	bind {{.ListenH2}} proto h2
	acl grpc path_beg /bench.Bench/
	use_backend grpc if grpc
	default_backend back
backend back
	server one {{.Backend}} pool-max-conn -1 pool-purge-delay 300s
backend grpc
	server one {{.GRPC}} proto h2 pool-max-conn -1 pool-purge-delay 300s
`

const envoyConfig = `
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
layered_runtime: {layers: [{name: static, static_layer: {}}]}
static_resources:
  listeners:
  - name: http
    address: {socket_address: {address: {{host .Listen}}, port_value: {{port .Listen}}}}
    filter_chains:
    - filters: &filters
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          codec_type: AUTO
          stream_idle_timeout: 300s
          http2_protocol_options: {max_concurrent_streams: 256}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /bench.Bench/}
                route: {cluster: grpc, timeout: 0s}
              - match: {prefix: /}
                route: {cluster: backend, timeout: 0s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: h2
    address: {socket_address: {address: {{host .ListenH2}}, port_value: {{port .ListenH2}}}}
    filter_chains: [{filters: *filters}]
  - name: https
    address: {socket_address: {address: {{host .ListenTLS}}, port_value: {{port .ListenTLS}}}}
    filter_chains:
    - filters: *filters
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: {{.Cert}}}, private_key: {filename: {{.Key}}}}]
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{host .Backend}}, port_value: {{port .Backend}}}}}}]}]
  - name: grpc
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: grpc
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: {{host .GRPC}}, port_value: {{port .GRPC}}}}}}]}]
`

// backendConfig is nginx as the service behind all subjects: it answers everything with 200 and 103 bytes, and what
// follows /bytes/ with so many, with or without that base path.
const backendConfig = `
daemon off;
pid {{.Dir}}/backend.pid;
worker_processes {{.Cores}};
worker_rlimit_nofile 18000;
events { worker_connections 8000; }
http {
	access_log off;
	tcp_nodelay on;
	sendfile on;
	open_file_cache max=100;
	keepalive_timeout 300s;
	keepalive_requests 1000000000;
	client_body_buffer_size 32k;
	default_type application/json;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	server {
		listen {{.Listen}};
		location / { return 200 '{"id":"8c5e1f0a","name":"A thing of some kind","price":{"amount":"12.50","currency":"EUR"},"stock":117}'; }
		location ~ ^(?:/bytes)?/(65536|1048576)$ { default_type application/octet-stream; alias {{.Files}}/$1; }
	}
}
`
