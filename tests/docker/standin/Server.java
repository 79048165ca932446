package standin;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Executors;

/**
 * The web server of the stand-in.
 *
 * {@code GET /} and {@code GET /api/public/info} as PEC has them: 503 until it is ready, 403 once its base was sent.
 * What a person does on PEC's screens, and what tests want to see, is below {@code /standin/}, see {@link Unification}:
 * {@code POST error} writes an error to the log, {@code POST memory} takes memory until the end.
 *
 * Environment: {@code STANDIN_DELAY} seconds until it is ready (0), {@code STANDIN_TRANSMIT} host:port to which it
 * tries to send something every two seconds (nowhere), {@code STANDIN_PAUSE} milliseconds between the steps of a
 * unification (500).
 */
final class Server {
    private final Properties settings;
    private final Unification unification = new Unification(this);
    private volatile boolean ready;
    private volatile boolean inactive;

    private Server(Properties settings) {
        this.settings = settings;
    }

    static void start(Properties settings) throws IOException, SQLException {
        new Server(settings).run();
    }

    private void run() throws IOException, SQLException {
        int port = Integer.parseInt(settings.getProperty("server.port", "8080"));
        Standin.log("Iniciando o PEC " + Standin.version() + " na porta " + port);
        HttpServer http = HttpServer.create(new InetSocketAddress(port), 0);
        http.setExecutor(Executors.newCachedThreadPool());
        http.createContext("/", this::handle);
        http.start();
        try (Connection connection = connect()) {
            String found = Standin.databaseVersion(connection);
            if (!found.equals(Standin.version())) {
                Standin.log("ERROR", "O PEC e o seu banco de dados não estão na mesma versão.", null);
                Standin.log("ERROR", "Versao do PEC esperada no banco de dados: " + Standin.version()
                        + " Versao encontrada: " + found, null);
                System.exit(1);
            }
            Standin.update(connection, "INSERT INTO tb_auditoria_evento (co_seq_auditoria_evento, dt_evento, ds_detalhes)"
                    + " SELECT coalesce(max(co_seq_auditoria_evento), 0) + 1, now(), 'PEC iniciado' FROM tb_auditoria_evento");
            inactive = !Standin.text(connection, "SELECT 1 FROM tb_config_sistema WHERE co_config_sistema = 'STANDIN_INATIVO'")
                    .isEmpty();
        }
        if (System.getenv("STANDIN_TRANSMIT") != null) {
            background("transmissao", this::transmit);
        }
        pause(1000L * Integer.parseInt(System.getenv().getOrDefault("STANDIN_DELAY", "0")));
        ready = true;
        Standin.log("PEC iniciado");
    }

    Connection connect() throws SQLException {
        return Standin.connect(settings.getProperty("spring.datasource.url"),
                settings.getProperty("spring.datasource.username"), settings.getProperty("spring.datasource.password"));
    }

    /** From now on nobody gets in; after the next start, too, if it is to stay. */
    void deactivate(boolean stay) throws SQLException {
        inactive = true;
        if (stay) {
            try (Connection connection = connect()) {
                Standin.update(connection, "INSERT INTO tb_config_sistema (co_config_sistema, ds_config_sistema,"
                        + " st_disponivel_sistema) VALUES ('STANDIN_INATIVO', 'Base enviada', 1) ON CONFLICT DO NOTHING");
            }
        }
        Standin.log("Instalação desativada");
    }

    static void background(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException ended) {
            Thread.currentThread().interrupt();
        }
    }

    private void transmit() {
        URI target = URI.create("tcp://" + System.getenv("STANDIN_TRANSMIT"));
        while (true) {
            try (Socket socket = new Socket()) {
                socket.connect(new InetSocketAddress(target.getHost(), target.getPort()), 2000);
                socket.getOutputStream().write("transmissao\n".getBytes(StandardCharsets.UTF_8));
                Standin.log("Transmissão concluída");
            } catch (IOException problem) {
                Standin.log("WARN", "Falha na transmissão: " + problem.getMessage(), null);
            }
            pause(2000);
        }
    }

    private void handle(HttpExchange exchange) throws IOException {
        String path = exchange.getRequestURI().getPath();
        try {
            if (path.startsWith("/standin/")) {
                answer(exchange, 200, "text/plain", command(path.substring(9), exchange.getRequestURI().getQuery()));
            } else if (!ready) {
                answer(exchange, 503, "text/plain", "iniciando");
            } else if (inactive) {
                answer(exchange, 403, "text/plain", "instalação desativada");
            } else if (path.equals("/")) {
                answer(exchange, 200, "text/html", "<!doctype html><title>e-SUS APS PEC</title>");
            } else if (path.equals("/api/public/info")) {
                answer(exchange, 200, "application/json", info());
            } else {
                answer(exchange, 404, "text/plain", "");
            }
        } catch (IllegalStateException refused) {
            answer(exchange, 409, "text/plain", refused.getMessage());
        } catch (SQLException problem) {
            Standin.log("ERROR", "Erro no banco de dados", problem);
            answer(exchange, 500, "text/plain", "erro");
        }
    }

    private String command(String name, String query) throws SQLException {
        switch (name) {
            case "error":
                Standin.log("ERROR", "Erro inesperado", new NullPointerException("teste"));
                return "";
            case "memory":
                background("memory", () -> {
                    List<byte[]> kept = new ArrayList<>();
                    while (true) {
                        kept.add(new byte[1 << 24]);
                    }
                });
                return "";
            default:
                return unification.command(name, query == null ? "" : query);
        }
    }

    private String info() throws SQLException {
        try (Connection connection = connect()) {
            return String.format("{\"version\": \"%s\", \"uuid\": \"%s\", \"type\": \"%s\", \"link\": \"%s\", \"training\": %s}",
                    Standin.version(), setting(connection, "UUIDINSTALACAO"), setting(connection, "TIPOINSTALACAO"),
                    setting(connection, "LINKINSTALACAO"), setting(connection, "TREINAMENTO").equals("1"));
        }
    }

    private static String setting(Connection connection, String key) throws SQLException {
        return Standin.text(connection, "SELECT coalesce(ds_texto, ds_inteiro::text) FROM tb_config_sistema"
                + " WHERE co_config_sistema = '" + key + "'");
    }

    private static void answer(HttpExchange exchange, int code, String type, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", type + "; charset=utf-8");
        exchange.sendResponseHeaders(code, bytes.length == 0 ? -1 : bytes.length);
        try (OutputStream out = exchange.getResponseBody()) {
            out.write(bytes);
        }
    }
}
